#include "checkpoint/pack.h"

#include <algorithm>
#include <memory>

#include "checkpoint/batches.h"
#include "core/arena.h"
#include "core/crc32c.h"
#include "core/error.h"
#include "core/pool.h"
#include "lossless/difference.h"

namespace tersor::checkpoint {
namespace {

static_assert(container::kChunkRawBytes == lossless::kChunkBytes);

// Of what is subtracted: complex numbers are pairs.
size_t width_of(DType dtype) noexcept { return dtype == DType::C64 ? 4 : dtype_bytes(dtype); }

struct CodedBatch : Batch {
  struct Coded {
    uint32_t stored_bytes, crc;
  };
  std::vector<size_t> offsets;  // of each job in the buffer, which has room for the worst case
  std::vector<size_t> sizes;    // of each job's coded bytes
  std::vector<Coded> coded;     // a piece each
  std::span<uint8_t> buffer;
  bool in_place = false;  // the buffer is the output's own memory

  // Where one job is coded at a time it goes to its place at once. Else to scratch, since fresh pages would cost more
  // than the coding of what they hold.
  void make_room(container::Writer& writer, ScratchFrame& frame) {
    offsets.clear();
    size_t needed = 0;
    for (const Job& job : jobs) {
      offsets.push_back(needed);
      for (size_t i = 0; i < job.count; ++i) needed += lossless::difference_bound(pieces[job.first + i].raw_bytes);
    }
    const auto room = jobs.size() == 1 ? writer.room(needed) : std::span<uint8_t>();
    if (in_place) buffer = {};
    in_place = !room.empty();
    if (in_place)
      buffer = room;
    else if (needed > buffer.size())
      buffer = frame.bytes(needed);
    sizes.assign(jobs.size(), 0);
    coded.assign(pieces.size(), {});
  }
};

class Packer {
 public:
  Packer(container::Sink& sink, bool sink_blocks, container::Index& index, std::span<const Source> sources,
         const References& bases, const Options& options, Pace& pace)
      : writer_(sink),
        sink_blocks_(sink_blocks),
        index_(index),
        sources_(sources),
        bases_(bases),
        options_(options),
        pace_(pace) {
    link_to_bases();
  }

  uint64_t run(std::vector<uint8_t>& hashed) {
    Batches batches(index_.entries, false, options_.threads);
    ScratchFrame frame;
    CodedBatch batch, previous;
    // While one batch is coded, the one before it is written by whoever comes first.
    while (batches.next(batch) || !previous.empty()) {
      if (sink_blocks_ || batch.jobs.size() == 1) {  // the only job may be coded where it is written
        write(previous);
        previous.jobs.clear();
      }
      batch.make_room(writer_, frame);
      const auto runs = hash_runs(batch, hashed);
      const size_t before = 1 + runs.size();
      parallel_for(before + batch.jobs.size(), 1, options_.threads, [&](size_t begin, size_t end) {
        for (size_t task = begin; task < end; ++task) {
          if (task == 0)
            write(previous);
          else if (task < before)
            hash(runs[task - 1]);
          else
            code(batch, task - before, hashed);
        }
      });
      for (size_t i = 0; i < batch.pieces.size(); ++i) {
        // The offset is the reader's to find.
        index_.entries[batch.pieces[i].entry].chunks.push_back({0, batch.coded[i].stored_bytes, batch.coded[i].crc});
      }
      unfinished_ = unfinished_next_;
      std::swap(batch, previous);
    }
    for (Entry& entry : index_.entries) {
      if (entry.raw_bytes == 0) entry.hash = hash128({});
      if (entry.same_as) pace_.add(entry.raw_bytes);
    }
    index_.hash = container::content_hash(index_.origin, index_.entries);
    return writer_.finish(index_);
  }

 private:
  void link_to_bases() {
    links_.resize(index_.entries.size());
    std::vector<size_t> used;
    for (size_t i = 0; i < links_.size(); ++i) {
      Entry& entry = index_.entries[i];
      if (entry.same_as) {
        entry.codec = index_.entries[*entry.same_as].codec;
        continue;
      }
      for (size_t base = 0; base < bases_.size() && entry.raw_bytes > 0; ++base) {
        const auto tensor = bases_.find(base, entry);
        if (!tensor) continue;
        links_[i] = *tensor;
        entry.codec = uint8_t(container::Codec::difference);
        const auto at = std::find(used.begin(), used.end(), base);
        entry.base = uint8_t(at - used.begin());
        if (at == used.end()) used.push_back(base), index_.bases.push_back(bases_.hash(base));
        TERSOR_REQUIRE(used.size() <= container::kMostBases, Code::bad_call, "a file has at most ",
                       container::kMostBases, " bases, tensors here are in more");
        break;
      }
    }
  }

  // The bytes of a tensor of several chunks that this batch holds: hashed front to back by one thread at a time.
  struct HashRun {
    size_t entry;
    std::span<const uint8_t> bytes;
    bool first, last;
  };

  std::vector<HashRun> hash_runs(const Batch& batch, const std::vector<uint8_t>& hashed) const {
    std::vector<HashRun> runs;
    for (const Piece& piece : batch.pieces) {
      const auto data = sources_[piece.entry].data;
      if (hashed[piece.entry] || data.size() <= lossless::kChunkBytes) continue;
      const size_t begin = piece.chunk * lossless::kChunkBytes;
      if (runs.empty() || runs.back().entry != piece.entry)
        runs.push_back({piece.entry, data.subspan(begin, 0), begin == 0, false});
      HashRun& run = runs.back();
      run.bytes = {run.bytes.data(), run.bytes.size() + piece.raw_bytes};
      run.last = begin + piece.raw_bytes == data.size();
    }
    return runs;
  }

  // Only a batch's last tensor goes on in the next batch, so one stream between batches is enough.
  void hash(const HashRun& run) {
    HashStream stream;
    if (!run.first) stream = unfinished_;
    constexpr size_t kStep = size_t(4) << 20;
    for (size_t at = 0; at < run.bytes.size(); at += kStep) {
      stream.update(run.bytes.subspan(at, std::min(kStep, run.bytes.size() - at)));
      pace_.add(0);
    }
    if (run.last)
      index_.entries[run.entry].hash = stream.finish();
    else
      unfinished_next_ = stream;
  }

  void code(CodedBatch& batch, size_t job_number, const std::vector<uint8_t>& hashed) {
    const Job& job = batch.jobs[job_number];
    uint8_t* at = batch.buffer.data() + batch.offsets[job_number];
    uint8_t* const start = at;
    for (size_t i = job.first; i < job.first + job.count; ++i) {
      const Piece& piece = batch.pieces[i];
      const Source& source = sources_[piece.entry];
      const auto raw = source.data.subspan(piece.chunk * lossless::kChunkBytes, piece.raw_bytes);
      const lossless::Layout layout = source.record.empty()
                                          ? lossless::Layout(source.element)
                                          : lossless::Layout(source.record, piece.chunk * lossless::kChunkBytes);
      size_t stored;
      if (index_.entries[piece.entry].codec == uint8_t(container::Codec::difference)) {
        ScratchFrame frame;
        stored = lossless::encode_difference(layout, width_of(source.dtype), raw,
                                             bases_.chunk(links_[piece.entry], piece.chunk, frame), options_.level,
                                             {at, lossless::difference_bound(raw.size())});
      } else {
        stored = lossless::encode_chunk(layout, raw, options_.level, {at, lossless::chunk_bound(raw.size())});
      }
      batch.coded[i] = {uint32_t(stored), crc32c({at, stored})};
      if (raw.size() == source.data.size() && !hashed[piece.entry]) index_.entries[piece.entry].hash = hash128(raw);
      at += stored;
    }
    batch.sizes[job_number] = size_t(at - start);
    pace_.add(job.raw_bytes);
  }

  void write(const CodedBatch& batch) {
    if (batch.in_place && !batch.jobs.empty()) return writer_.keep(batch.sizes[0]);
    for (size_t i = 0; i < batch.jobs.size(); ++i) {
      writer_.append({batch.buffer.data() + batch.offsets[i], batch.sizes[i]});
      pace_.add(0);
    }
  }

  container::Writer writer_;
  const bool sink_blocks_;
  container::Index& index_;
  const std::span<const Source> sources_;
  const References& bases_;
  std::vector<References::Tensor> links_;  // of every entry; said of differences alone
  const Options& options_;
  Pace& pace_;
  HashStream unfinished_, unfinished_next_;
};

}  // namespace

Summary pack(container::Sink& sink, bool sink_blocks, const Contents& contents, const References& bases,
             const Options& options, Pace& pace) {
  TERSOR_REQUIRE(options.level >= lossless::kLeastLevel && options.level <= lossless::kMostLevel, Code::bad_call,
                 "the level is in ", lossless::kLeastLevel, "..", lossless::kMostLevel, ", not ", options.level);
  container::Index index;
  index.origin = contents.origin;
  index.metadata = contents.metadata;
  index.gaps = contents.gaps;
  Summary summary;
  summary.origin = container::origin_name(contents.origin);
  for (const Source& source : contents.sources) {
    Entry entry;
    entry.name = source.name;
    entry.kind = source.kind;
    entry.dtype = source.dtype;
    entry.shape = source.shape;
    entry.raw_bytes = source.data.size();
    summary.raw_bytes += entry.raw_bytes;
    index.entries.push_back(std::move(entry));
  }
  container::index_bytes(index);  // what the format does not allow is refused before the work
  std::vector<uint8_t> hashed(contents.sources.size(), false);
  find_ties(contents.sources, index.entries, hashed, options.threads, pace);
  summary.stored_bytes = Packer(sink, sink_blocks, index, contents.sources, bases, options, pace).run(hashed);
  summary.hash = index.hash;
  return summary;
}

}  // namespace tersor::checkpoint
