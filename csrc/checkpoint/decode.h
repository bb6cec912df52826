// From a codec's number to the bytes: the one place that knows which room decodes what.
#pragma once
#include <span>

#include "checkpoint/batches.h"
#include "container/reader.h"

namespace tersor::checkpoint {

// Fills raw with chunk `chunk` of `entry` (or of the one whose chunks it shares); raises bad_data with both named.
void decode_piece(const container::Reader& reader, size_t entry, size_t chunk, std::span<uint8_t> raw);

// All pieces of a job, one behind the other.
void decode_job(const container::Reader& reader, const Batch& batch, const Job& job, std::span<uint8_t> raw);

}  // namespace tersor::checkpoint
