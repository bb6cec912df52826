// .tsr files back to what they were made from, and their verification.
#include <algorithm>
#include <memory>

#include "checkpoint/decode.h"
#include "checkpoint/files.h"
#include "checkpoint/safetensors.h"
#include "container/reader.h"
#include "core/arena.h"
#include "core/bits.h"
#include "core/pool.h"

namespace tersor::checkpoint {
namespace {

using container::Origin;
using container::Reader;

// Tensors that came from no file get the header that safetensors' own writer would give them.
std::vector<uint8_t> made_header(const container::Index& index) {
  if (index.origin != Origin::tensors && index.origin != Origin::array) return {};
  return safetensors_header(index.entries, index.metadata);
}

uint64_t raw_sum(const container::Index& index) {
  uint64_t sum = 0;
  for (const Entry& entry : index.entries) sum = checked_add(sum, entry.raw_bytes, "raw bytes of all entries");
  return sum;
}

Summary summary_of(const Reader& reader, uint64_t raw_bytes) {
  return {raw_bytes,
          reader.file_bytes(),
          reader.index().hash,
          std::string(container::origin_name(reader.index().origin)),
          {}};
}

// A file's bytes in their order: the entries, and between them what the last one of them has kept, if there are gaps.
class Assembly {
 public:
  Assembly(const PieceDecoder& decoder, Damage* damage, Pace& pace) : decoder_(decoder), damage_(damage) {
    const auto& index = decoder.reader().index();
    entries_ = index.entries;
    if (!has_gaps(index.origin)) return;
    const size_t last = entries_.size() - 1;
    gaps_.resize(size_t(entries_[last].raw_bytes));
    for (size_t i = 0; i < container::chunk_count(gaps_.size()); ++i) {
      const auto part =
          std::span(gaps_).subspan(i * container::kChunkRawBytes, container::chunk_raw_bytes(gaps_.size(), i));
      decoder.piece(last, i, part, damage);
      pace.add(part.size());
    }
    entries_ = entries_.first(last);
    size_t begin = 0, end = 0;
    for (size_t i = 0; i < last; ++i) {
      end += size_t(index.gaps[i]);
      before_.push_back({begin, end - begin});
      if (entries_[i].raw_bytes > 0) begin = end;  // what comes before an empty entry comes before the next one
    }
    rest_ = std::span<const uint8_t>(gaps_).subspan(begin);
  }

  std::span<const Entry> entries() const noexcept { return entries_; }  // whose pieces are placed
  std::span<const uint8_t> rest() const noexcept { return rest_; }      // behind the last of them

  size_t bytes(const Batch& batch, const Job& job) const noexcept {
    size_t sum = job.raw_bytes;
    for (size_t i = job.first; i < job.first + job.count; ++i) sum += before(batch.pieces[i]).size();
    return sum;
  }
  // Fills out with the job's pieces and what lies before them.
  void place(const Batch& batch, const Job& job, std::span<uint8_t> out) const {
    for (size_t i = job.first; i < job.first + job.count; ++i) {
      const Piece& piece = batch.pieces[i];
      const auto gap = before(piece);
      std::copy(gap.begin(), gap.end(), out.begin());
      out = out.subspan(gap.size());
      decoder_.piece(piece.entry, piece.chunk, out.first(piece.raw_bytes), damage_);
      out = out.subspan(piece.raw_bytes);
    }
  }

 private:
  std::span<const uint8_t> before(const Piece& piece) const noexcept {
    if (before_.empty() || piece.chunk > 0) return {};
    return std::span<const uint8_t>(gaps_).subspan(before_[piece.entry].begin, before_[piece.entry].bytes);
  }
  struct Range {
    size_t begin, bytes;
  };
  const PieceDecoder& decoder_;
  Damage* const damage_;
  std::span<const Entry> entries_;
  std::vector<uint8_t> gaps_;
  std::vector<Range> before_;  // of the gaps, for every other entry
  std::span<const uint8_t> rest_;
};

// Every thread writes what it has decoded: the file system sorts it out.
void decode_anywhere(const Assembly& assembly, OutputFile& output, uint64_t offset, int threads, Pace& pace) {
  Batches batches(assembly.entries(), true, threads);
  Batch batch;
  std::vector<uint64_t> offsets;
  while (batches.next(batch)) {
    offsets.clear();
    for (const Job& job : batch.jobs) {
      offsets.push_back(offset);
      offset += assembly.bytes(batch, job);
    }
    parallel_for(batch.jobs.size(), 1, threads, [&](size_t begin, size_t end) {
      for (size_t i = begin; i < end; ++i) {
        ScratchFrame scratch;
        const auto out = scratch.bytes(assembly.bytes(batch, batch.jobs[i]));
        assembly.place(batch, batch.jobs[i], out);
        output.write_at(offsets[i], out);
        pace.add(batch.jobs[i].raw_bytes);
      }
    });
  }
  output.write_at(offset, assembly.rest());
}

// A batch decoded to memory.
struct DecodedBatch : Batch {
  std::vector<size_t> offsets;  // of each job, and the end
  std::unique_ptr<uint8_t[]> buffer;
  size_t room = 0;

  void make_room(const Assembly* assembly = nullptr) {
    offsets.clear();
    size_t offset = 0;
    for (const Job& job : jobs) {
      offsets.push_back(offset);
      offset += assembly ? assembly->bytes(*this, job) : job.raw_bytes;
    }
    if (offset > room) buffer = std::make_unique_for_overwrite<uint8_t[]>(room = offset);
    offsets.push_back(offset);
  }
  std::span<uint8_t> of(size_t job) { return {buffer.get() + offsets[job], offsets[job + 1] - offsets[job]}; }
};

void decode_in_order(const Assembly& assembly, container::Sink& sink, int threads, Pace& pace) {
  Batches batches(assembly.entries(), true, threads);
  DecodedBatch batch;
  while (batches.next(batch)) {
    batch.make_room(&assembly);
    parallel_for(batch.jobs.size(), 1, threads, [&](size_t begin, size_t end) {
      for (size_t i = begin; i < end; ++i) {
        assembly.place(batch, batch.jobs[i], batch.of(i));
        pace.add(batch.jobs[i].raw_bytes);
      }
    });
    sink.write({batch.buffer.get(), batch.offsets.back()});
  }
  sink.write(assembly.rest());
}

// Goes through the whole file, whatever it finds. Decodes batch after batch; a tensor of several chunks is hashed front
// to back by one thread, one batch behind the decoding, so that no thread waits for another.
class Verifier {
 public:
  Verifier(const PieceDecoder& decoder, int threads, Pace& pace)
      : decoder_(decoder), reader_(decoder.reader()), threads_(threads), pace_(pace) {}

  // What is wrong, a line each.
  std::vector<std::string> run() {
    const auto& entries = reader_.index().entries;
    for (size_t i = 0; i < entries.size(); ++i) {
      if (entries[i].raw_bytes == 0) check(i, hash128({}));
      if (entries[i].same_as)
        pace_.add(entries[i].raw_bytes);  // its hash is the other one's: the index was refused otherwise
    }
    Batches batches(entries, false, threads_);
    DecodedBatch batch, previous;
    while (batches.next(batch) || !previous.empty()) {
      batch.make_room();
      parallel_for(1 + batch.jobs.size(), 1, threads_, [&](size_t begin, size_t end) {
        for (size_t task = begin; task < end; ++task) {
          if (task == 0)
            hash_long(previous);
          else
            decode(batch, task - 1);
        }
      });
      std::swap(batch, previous);
    }
    if (auto lines = damage_.lines(); !lines.empty()) return lines;
    const Hash128 content = container::content_hash(reader_.index().origin, entries);
    TERSOR_REQUIRE(content == reader_.index().hash, Code::bad_data, "the content hash is ", content.hex(),
                   ", the index says ", reader_.index().hash.hex());
    return {};
  }

 private:
  // Chunks that are known to be bad say more than the hash that follows from them.
  void check(size_t number, const Hash128& found) {
    const Entry& entry = reader_.index().entries[number];
    if (found == entry.hash || damage_.hurts(number)) return;
    damage_.add(number, Damage::kWholeEntry,
                entry.title() + " has hash " + found.hex() + ", the index says " + entry.hash.hex());
  }

  void decode(DecodedBatch& batch, size_t number) {
    const Job& job = batch.jobs[number];
    auto raw = batch.of(number);
    decoder_.job(batch, job, raw, &damage_);
    for (size_t i = job.first; i < job.first + job.count; ++i) {
      const Piece& piece = batch.pieces[i];
      const Entry& entry = reader_.index().entries[piece.entry];
      if (entry.raw_bytes == piece.raw_bytes) check(piece.entry, hash128(raw.first(piece.raw_bytes)));
      raw = raw.subspan(piece.raw_bytes);
    }
    pace_.add(job.raw_bytes);
  }

  void hash_long(DecodedBatch& batch) {
    const uint8_t* at = batch.buffer.get();
    for (const Piece& piece : batch.pieces) {
      const Entry& entry = reader_.index().entries[piece.entry];
      if (entry.raw_bytes > piece.raw_bytes) {
        if (piece.chunk == 0) stream_ = HashStream();
        stream_.update({at, piece.raw_bytes});
        if (piece.chunk + 1 == entry.chunks.size()) check(piece.entry, stream_.finish());
      }
      at += piece.raw_bytes;
    }
  }

  const PieceDecoder& decoder_;
  const Reader& reader_;
  const int threads_;
  Pace& pace_;
  Damage damage_;
  HashStream stream_;
};

// The header that travels as bytes must describe the tensors that travel beside it.
void check_header(const PieceDecoder& decoder) {
  const auto& index = decoder.reader().index();
  if (index.origin != Origin::safetensors) return;
  const Entry& header = index.entries[0];
  TERSOR_REQUIRE(header.raw_bytes <= kMostSafetensorsHeader, Code::bad_data, "the kept .safetensors header has ",
                 header.raw_bytes, " bytes, at most ", kMostSafetensorsHeader, " are allowed");
  std::vector<uint8_t> bytes(size_t(header.raw_bytes));
  try {
    for (size_t i = 0; i < header.chunks.size(); ++i)
      decoder.piece(0, i,
                    std::span(bytes).subspan(i * lossless::kChunkBytes, container::chunk_raw_bytes(bytes.size(), i)));
  } catch (const Error& error) {
    if (error.code() != Code::bad_data) throw;
    return;  // the verifier names the chunk, and all others
  }
  const auto file = parse_safetensors(bytes, raw_sum(index));
  bool same = file && file->header_bytes == bytes.size() && file->metadata == index.metadata &&
              file->tensors.size() + 1 == index.entries.size();
  for (size_t i = 0; same && i < file->tensors.size(); ++i) {
    const auto& tensor = file->tensors[i];
    const Entry& entry = index.entries[i + 1];
    same = tensor.name == entry.name && tensor.dtype == entry.dtype && tensor.shape == entry.shape;
  }
  TERSOR_REQUIRE(same, Code::bad_data, "the kept .safetensors header does not describe the tensors of the index");
}

}  // namespace

Summary decompress_file(const std::string& in, const std::string& out, const Options& options) {
  Pace reading(options.progress, 0);
  const InputFile input = InputFile::open(in, reading);
  input.expect_sequential();
  return naming(in, [&] {
    const Reader reader(input.bytes());
    const auto header = made_header(reader.index());
    const uint64_t raw_bytes = raw_sum(reader.index());
    Pace pace(options.progress, raw_bytes);
    const References bases = References::open(options.bases, options.threads, pace);
    const PieceDecoder decoder(reader, bases);
    bases.refuse_as_output(out);
    Damage damage;
    const Assembly assembly(decoder, options.keep_going ? &damage : nullptr, pace);
    OutputFile output(out, &input, options, pace);
    output.write(header);
    if (output.seekable())
      decode_anywhere(assembly, output, header.size(), options.threads, pace);
    else
      decode_in_order(assembly, output, options.threads, pace);
    pace.ask();
    output.commit();
    Summary summary = summary_of(reader, raw_bytes + header.size());
    summary.damaged = damage.lines();
    return summary;
  });
}

Summary verify_file(const std::string& in, const Options& options) {
  Pace reading(options.progress, 0);
  const InputFile input = InputFile::open(in, reading);
  input.expect_sequential();
  return naming(in, [&] {
    const Reader reader(input.bytes());
    const uint64_t raw_bytes = raw_sum(reader.index());
    Pace pace(options.progress, raw_bytes);
    const References bases = References::open(options.bases, options.threads, pace);
    const PieceDecoder decoder(reader, bases);
    check_header(decoder);
    Summary summary = summary_of(reader, raw_bytes);
    summary.damaged = Verifier(decoder, options.threads, pace).run();
    if (!options.keep_going && !summary.damaged.empty()) throw Error(Code::bad_data, summary.damaged[0]);
    pace.ask();
    return summary;
  });
}

std::string restored_name(const std::string& in) {
  constexpr std::string_view kEnding = ".tsr", kTensors = ".safetensors";
  TERSOR_REQUIRE(in.size() > kEnding.size() && in.ends_with(kEnding) && in[in.size() - kEnding.size() - 1] != '/',
                 Code::bad_call, "\"", in, "\" does not end in .tsr: the output's name must be given");
  std::string name = in.substr(0, in.size() - kEnding.size());
  Pace pace(nullptr, 0);
  const InputFile input = InputFile::open(in, pace);
  const Origin origin = naming(in, [&] { return Reader(input.bytes()).index().origin; });
  if ((origin == Origin::tensors || origin == Origin::array) && !name.ends_with(kTensors)) name += kTensors;
  return name;
}

}  // namespace tersor::checkpoint
