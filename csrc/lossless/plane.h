// One plane of 8-bit values: raw, constant or rANS with tables that follow the data. Page: docs/formats/lossless.md.
#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "entropy/rans.h"
#include "entropy/table.h"

namespace tersor::lossless {

// Values decoded at a time: all planes of a tile stay in the L1 and L2 caches.
inline constexpr size_t kTile = 16384;
static_assert(kTile % entropy::kMostLanes == 0, "PlaneDecoder::next takes whole rows");

struct PlaneOptions {
  size_t segment = 65536;  // values that a table serves at least; a multiple of 256
  int precision = 14;      // of the tables
  int least_saving = 0;    // what coding must save, in 1/10,000 of the plane, else raw
  int stride = 1;          // planes below 32: count one value in so many
  bool quick = true;       // some tens of bytes are worth twice the speed of reading
};

// The largest coded size that is worth decoding instead of `raw` bytes.
constexpr size_t worth(size_t raw, int least_saving) noexcept { return raw - raw * size_t(least_saving) / 10000; }

// Writes the plane as a constant or coded if that is worth it against `rival` bytes; says whether it did.
// limit: values are below it (32 or 256).
bool encode_plane_below(std::span<const uint8_t> values, int limit, const PlaneOptions& options, size_t rival,
                        ByteWriter& out);

// The same, raw where nothing else is worth it; planes below 32 are always coded.
void encode_plane(std::span<const uint8_t> values, int limit, const PlaneOptions& options, ByteWriter& out);

// Reads a plane from front to back.
class PlaneDecoder {
 public:
  // Takes the plane from the front of `data` and moves `data` behind it. Raises bad_data; values will be below limit.
  PlaneDecoder(std::span<const uint8_t>& data, size_t values, int limit);

  // The next `count` values: a multiple of 256 unless they end the plane. They lie in `scratch`, or in the coded bytes
  // themselves where the plane is raw.
  const uint8_t* next(size_t count, uint8_t* scratch);
  void finish() const;

 private:
  struct Run {
    size_t values;
    entropy::Table table;
  };
  std::span<const uint8_t> raw_;
  int constant_ = -1;
  std::vector<Run> runs_;
  size_t run_ = 0, left_ = 0;  // the run being read, values left in it
  std::unique_ptr<entropy::DecodeTables> tables_;
  std::optional<entropy::BlockDecoder> block_;
};

}  // namespace tersor::lossless
