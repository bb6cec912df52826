// Packs vector codebooks and says which kernels read them.
#include "gemm/vectors.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "core/arena.h"
#include "core/error.h"
#include "core/pool.h"
#include "formats/small_float.h"
#include "gemm/layout.h"
#include "gemm/pack.h"

namespace tersor::gemm {
namespace {

using formats::VectorCodes;

// Codewords as whole numbers of steps: entry = step * (byte - offset of its stage).
struct Bytes {
  float step = 1;
  int center = 0;
  std::array<int, formats::kMostStages> offsets{};
};

float entry_at(const VectorCodes& codes, int stage, size_t i) noexcept {
  const size_t at = size_t(stage) * codes.entries * size_t(codes.dimension) + i;
  return formats::f32_of_f16(load_le<uint16_t>(codes.codebook + 2 * at));
}

int steps_of(float value, float step) noexcept { return int(std::nearbyint(value / step)); }

// The least step at which the stages' bytes add up to 255 at most: rounding widens a stage's range by one at most.
Bytes bytes_of(const VectorCodes& codes) noexcept {
  std::array<float, formats::kMostStages> least{}, most{};
  float range = 0;
  for (int s = 0; s < codes.stages; ++s) {
    for (size_t i = 0; i < codes.entries * size_t(codes.dimension); ++i) {
      const float value = entry_at(codes, s, i);
      least[size_t(s)] = std::min(least[size_t(s)], value), most[size_t(s)] = std::max(most[size_t(s)], value);
    }
    range += most[size_t(s)] - least[size_t(s)];
  }
  Bytes found;
  if (range > 0) found.step = range / float(255 - codes.stages);
  for (int s = 0; s < codes.stages; ++s) {
    found.offsets[size_t(s)] = -steps_of(least[size_t(s)], found.step);
    found.center += found.offsets[size_t(s)];
  }
  return found;
}

PackedHead head_of(const VectorCodes& codes, const Bytes& bytes) {
  PackedHead head = gemm::head_of(Family::vectors, codes.rows, codes.columns, codes.columns);
  head.bits = uint8_t(codes.bits), head.dimension = uint8_t(codes.dimension), head.stages = uint8_t(codes.stages);
  head.scale_kind = packed_kind(codes.scales.kind);
  head.has_integers = 1, head.looked_up = 1;
  head.center = uint16_t(bytes.center), head.step = bytes.step;
  return head;
}

void fill_tables(const VectorCodes& codes, const Bytes& bytes, const VectorTables& at, uint8_t* out) noexcept {
  const size_t d = size_t(codes.dimension), size = size_t(1) << codes.bits;
  std::memset(out, 0, size_t(at.bytes));
  for (int s = 0; s < codes.stages; ++s)
    for (size_t entry = 0; entry < codes.entries; ++entry) {
      uint8_t word[kWordBytes] = {};
      float floats[kWordBytes] = {};
      for (size_t i = 0; i < d; ++i) {
        floats[i] = entry_at(codes, s, entry * d + i);
        word[i] = uint8_t(steps_of(floats[i], bytes.step) + bytes.offsets[size_t(s)]);
      }
      const size_t place = size_t(s) * size + entry;
      std::memcpy(out + at.words + place * kWordBytes, word, sizeof word);
      std::memcpy(out + at.floats + place * sizeof floats, floats, sizeof floats);
      if (!at.looked_up) continue;
      for (size_t i = 0; i < kWordBytes; ++i) out[at.planes + (size_t(s) * kWordBytes + i) * size + entry] = word[i];
      for (size_t half = 0; half < 2; ++half)
        std::memcpy(out + at.fours + ((size_t(s) * 2 + half) * size + entry) * 4, word + 4 * half, 4);
    }
}

// Codes of 64 rows.
template <class Code>
void pack_pair(const VectorCodes& codes, const Vectors& to, size_t pair, std::span<uint16_t> room, uint8_t* out) {
  const size_t first = pair * kPairRows, rows = std::min(kPairRows, codes.rows - first), count = to.count;
  for (int s = 0; s < codes.stages; ++s) {
    for (size_t r = 0; r < rows; ++r) codes.unpack(s, first + r, 0, count, room.data() + r * count);
    for (size_t v = 0; v < count; ++v) {
      Code record[kPairRows] = {};
      for (size_t r = 0; r < rows; ++r)
        record[r / kTileRows * kTileRows + code_place(r % kTileRows)] = Code(room[r * count + v]);
      std::memcpy(out + (to.at(pair, v) - to.codes) + size_t(s) * sizeof record, record, sizeof record);
    }
  }
}

}  // namespace

const VectorKernels& vector_kernels() noexcept {
  return TERSOR_X86(active_isa() >= Isa::avx512vbmi ? kAvx512VbmiVectorKernels :) kScalarVectorKernels;
}

uint64_t packed_bytes(const VectorCodes& codes) { return Layout(head_of(codes, Bytes())).bytes; }

void pack(const VectorCodes& codes, std::span<uint8_t> out, int threads) {
  const Bytes bytes = bytes_of(codes);
  PackedHead head = head_of(codes, bytes);
  const Layout layout(head);
  layout.begin(head, out);
  fill_tables(codes, bytes, VectorTables(head), out.data() + layout.tables);
  const Vectors to = Packed::parse(out).vectors;
  parallel_for(to.pairs, 1, threads, [&](size_t begin, size_t end) {
    ScratchFrame scratch;
    const auto room = scratch.take<uint16_t>(kPairRows * to.count);
    for (size_t pair = begin; pair < end; ++pair) {
      uint8_t* const at = out.data() + layout.codes;
      to.code_bytes == 1 ? pack_pair<uint8_t>(codes, to, pair, room, at)
                         : pack_pair<uint16_t>(codes, to, pair, room, at);
    }
  });
  for (size_t tile = 0; tile < layout.tiles; ++tile) {
    const size_t first = tile * kTileRows;
    pack_numbers(codes.scales, head.scale_kind, first, std::min(kTileRows, codes.rows - first), 1, 1,
                 layout.numbers(out, layout.scales, tile));
  }
}

}  // namespace tersor::gemm
