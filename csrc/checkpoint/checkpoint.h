// Files as users know them, in and out of .tsr. The doors (Python, tersor-enc, tersor-dec) call nothing else.
#pragma once
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "container/index.h"
#include "container/writer.h"
#include "core/array.h"
#include "core/hash.h"
#include "lossless/chunk.h"

namespace tersor::checkpoint {

using container::Entry;
using container::Metadata;

// Told of raw bytes, on the calling thread, at least every 50 ms of work. false stops the work: Code::interrupted.
struct Progress {
  virtual ~Progress() = default;
  virtual bool step(uint64_t done, uint64_t total) = 0;  // total is 0 while it is not known (a pipe is being read)
};

struct Options {
  int level = lossless::kDefaultLevel;
  int threads = 0;                 // 0: num_threads()
  bool force = false;              // overwrite what stands under the output's name; write binary to a terminal
  bool keep_mode = true;           // the output gets the input's permission bits
  std::vector<std::string> bases;  // what tensors are coded against: files of tensors, .tsr, folders
  bool keep_going = false;         // damaged chunks stop nothing: decompress_file writes zeros, verify_file finds all
  Progress* progress = nullptr;
};

struct Summary {
  uint64_t raw_bytes = 0;     // of the file, or of the tensors, that the .tsr stands for
  uint64_t stored_bytes = 0;  // of the whole .tsr
  Hash128 hash;
  std::string origin;
  std::vector<std::string> damaged;  // with Options::keep_going: a line for every bad chunk or wrong hash
};

// Of a file path "-" is standard input or output. Nothing appears under an output's name before it is complete and on
// disk; an output that is the input, or that exists, is refused (the latter unless Options::force).
Summary compress_file(const std::string& in, const std::string& out, const Options& options);
Summary decompress_file(const std::string& in, const std::string& out, const Options& options);

// Checks every CRC and every hash; raises bad_data that names tensor and chunk.
Summary verify_file(const std::string& in, const Options& options);

// X.tsr -> X, or X.safetensors when the file holds tensors that came from no file. Raises bad_call when `in` does not
// end in .tsr.
std::string restored_name(const std::string& in);

// Tensors are stored in safetensors' order: wide dtypes first, then by name. Names are unique and not "__metadata__".
Summary save_tensors(const std::string& out, std::span<const TensorView> tensors, const Metadata& metadata,
                     const Options& options);
std::vector<uint8_t> save_tensors(std::span<const TensorView> tensors, const Metadata& metadata,
                                  const Options& options);
std::vector<uint8_t> compress_array(const TensorView& array, const Options& options);

// The same into a sink that never waits; its write may be called by any thread, one at a time.
Summary save_tensors(container::Sink& sink, std::span<const TensorView> tensors, const Metadata& metadata,
                     const Options& options);
Summary compress_array(container::Sink& sink, const TensorView& array, const Options& options);

// An open .tsr. Immutable after construction: any number of threads may read.
class TensorFile {
 public:
  // bases: as in Options; raises bad_data where one that the file needs is missing.
  static TensorFile open(const std::string& path, std::span<const std::string> bases = {});  // mapped
  static TensorFile view(std::span<const uint8_t> bytes,
                         std::span<const std::string> bases = {});  // the caller keeps the bytes alive

  // Without bases: to look at entries. Reading one that needs a base raises bad_data.
  static TensorFile open_index(const std::string& path);

  const std::vector<Entry>& entries() const noexcept;
  const Metadata& metadata() const noexcept;
  const std::vector<Hash128>& bases() const noexcept;  // contents that tensors are coded against
  Hash128 hash() const noexcept;
  int version() const noexcept;
  std::string origin() const;
  uint64_t stored_bytes(size_t entry) const noexcept;  // 0 for an entry that shares another's chunks

  // The whole entry; out is entries()[entry].raw_bytes long. CRCs are checked, hashes are not.
  void read(size_t entry, std::span<uint8_t> out, int threads) const;
  // Bytes [begin, begin + out.size()) of the entry: decodes only the chunks that it touches.
  void read_range(size_t entry, uint64_t begin, std::span<uint8_t> out, int threads) const;

  // Many reads at once: their chunks share the threads, which small tensors need. Those of one chunk that follow one
  // another decode it once.
  struct Request {
    size_t entry;
    uint64_t begin;
    std::span<uint8_t> out;
  };
  void read_all(std::span<const Request> requests, int threads) const;

 private:
  struct State;
  explicit TensorFile(std::shared_ptr<const State> state) : state_(std::move(state)) {}
  std::shared_ptr<const State> state_;
};

}  // namespace tersor::checkpoint
