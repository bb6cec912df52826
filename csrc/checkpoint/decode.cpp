#include "checkpoint/decode.h"

#include <cstring>

#include "core/error.h"
#include "lossless/chunk.h"

namespace tersor::checkpoint {
namespace {

void decode_lossless(const container::Entry& entry, size_t chunk, std::span<const uint8_t> coded,
                     std::span<uint8_t> raw) {
  try {
    lossless::decode_chunk(coded, raw);
  } catch (const Error& error) {
    if (error.code() != Code::bad_data) throw;
    fail(Code::bad_data, entry.title(), ": chunk ", chunk, ": ", error.what());
  }
}

}  // namespace

void decode_piece(const container::Reader& reader, size_t entry, size_t chunk, std::span<uint8_t> raw) {
  const container::Entry& stored = reader.stored_entry(entry);
  const auto coded = reader.chunk(stored, chunk);
  switch (container::Codec(stored.codec)) {
    case container::Codec::stored:
      TERSOR_REQUIRE(coded.size() == raw.size(), Code::bad_data, stored.title(), ": chunk ", chunk, " holds ",
                     coded.size(), " bytes, ", raw.size(), " are needed");
      std::memcpy(raw.data(), coded.data(), raw.size());
      return;
    case container::Codec::lossless: decode_lossless(stored, chunk, coded, raw); return;
  }
  fail(Code::bad_data, stored.title(), " is coded with ", container::codec_name(stored.codec),
       ", which tersor " TERSOR_VERSION " does not know");
}

void decode_job(const container::Reader& reader, const Batch& batch, const Job& job, std::span<uint8_t> raw) {
  for (size_t i = job.first; i < job.first + job.count; ++i) {
    const Piece& piece = batch.pieces[i];
    decode_piece(reader, piece.entry, piece.chunk, raw.first(piece.raw_bytes));
    raw = raw.subspan(piece.raw_bytes);
  }
}

}  // namespace tersor::checkpoint
