#include "checkpoint/decode.h"

#include <algorithm>
#include <cstring>

#include "core/arena.h"
#include "core/error.h"
#include "lossless/chunk.h"
#include "lossless/difference.h"

namespace tersor::checkpoint {
namespace {

using container::Codec;
using container::Entry;

// What a codec finds wrong is said of the tensor and the chunk.
template <class F>
void naming_chunk(const Entry& entry, size_t chunk, const F& decode) {
  try {
    decode();
  } catch (const Error& error) {
    if (error.code() != Code::bad_data) throw;
    fail(Code::bad_data, entry.title(), ": chunk ", chunk, ": ", error.what());
  }
}

}  // namespace

PieceDecoder::PieceDecoder(const container::Reader& reader, const References& bases, bool partly)
    : reader_(reader), bases_(bases) {
  const auto& index = reader.index();
  if (partly || index.bases.empty()) return;
  links_.resize(index.entries.size());
  for (size_t i = 0; i < links_.size(); ++i) {
    const Entry& entry = index.entries[i];
    if (entry.codec == uint8_t(Codec::difference) && !entry.same_as) links_[i] = linked(entry);
  }
}

References::Tensor PieceDecoder::linked(const Entry& entry) const {
  const size_t base = bases_.with_hash(reader_.index().bases[entry.base]);
  const auto tensor = bases_.find(base, entry);
  TERSOR_REQUIRE(tensor, Code::bad_data, entry.title(), " is coded against base ", bases_.hash(base).hex(),
                 ", which has no tensor of that name, dtype and size");
  return *tensor;
}

void PieceDecoder::piece(size_t entry, size_t chunk, std::span<uint8_t> raw) const {
  const auto& asked = reader_.index().entries[entry];
  const size_t number = asked.same_as ? *asked.same_as : entry;
  const Entry& stored = reader_.index().entries[number];
  const auto coded = reader_.chunk(stored, chunk);
  switch (Codec(stored.codec)) {
    case Codec::stored:
      TERSOR_REQUIRE(coded.size() == raw.size(), Code::bad_data, stored.title(), ": chunk ", chunk, " holds ",
                     coded.size(), " bytes, ", raw.size(), " are needed");
      std::memcpy(raw.data(), coded.data(), raw.size());
      return;
    case Codec::lossless: return naming_chunk(stored, chunk, [&] { lossless::decode_chunk(coded, raw); });
    case Codec::difference: {
      ScratchFrame frame;
      const auto base = bases_.chunk(links_.empty() ? linked(stored) : *links_[number], chunk, frame);
      return naming_chunk(stored, chunk, [&] { lossless::decode_difference(coded, base, raw); });
    }
  }
  fail(Code::bad_data, stored.title(), " is coded with ", container::codec_name(stored.codec),
       ", which tersor " TERSOR_VERSION " does not know");
}

void PieceDecoder::piece(size_t entry, size_t chunk, std::span<uint8_t> raw, Damage* damage) const {
  try {
    piece(entry, chunk, raw);
  } catch (const Error& error) {
    if (!damage || error.code() != Code::bad_data) throw;
    const auto& same_as = reader_.index().entries[entry].same_as;
    damage->add(same_as ? *same_as : entry, chunk, error.what());
    std::fill(raw.begin(), raw.end(), uint8_t(0));
  }
}

void PieceDecoder::job(const Batch& batch, const Job& job, std::span<uint8_t> raw, Damage* damage) const {
  for (size_t i = job.first; i < job.first + job.count; ++i) {
    const Piece& part = batch.pieces[i];
    piece(part.entry, part.chunk, raw.first(part.raw_bytes), damage);
    raw = raw.subspan(part.raw_bytes);
  }
}

void Damage::add(size_t entry, size_t chunk, std::string line) {
  const std::lock_guard lock(mutex_);
  lines_.emplace(std::pair(entry, chunk), std::move(line));
}

bool Damage::hurts(size_t entry) const {
  const std::lock_guard lock(mutex_);
  const auto at = lines_.lower_bound({entry, 0});
  return at != lines_.end() && at->first.first == entry;
}

std::vector<std::string> Damage::lines() const {
  const std::lock_guard lock(mutex_);
  std::vector<std::string> lines;
  for (const auto& [place, line] : lines_) lines.push_back(line);
  return lines;
}

}  // namespace tersor::checkpoint
