// Packs sparse weights and says which kernels read them.
#include "gemm/sparse.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <numeric>
#include <vector>

#include "core/arena.h"
#include "core/error.h"
#include "core/pool.h"
#include "gemm/layout.h"
#include "gemm/pack.h"

namespace tersor::gemm {
namespace {

using formats::NumberKind;
using formats::Sparse;

PackedHead head_of(const Sparse& sparse) {
  const bool coded = sparse.value_kind == NumberKind::none;
  PackedHead head = gemm::head_of(Family::sparse, sparse.rows, sparse.columns, coded ? sparse.group : sparse.columns);
  if (coded) {
    head.bits = sparse.bits <= 4 ? 4 : 8;
    head.scale_kind = packed_kind(sparse.scales.kind);
    head.center = uint16_t(1 << (sparse.bits - 1));
    head.has_integers = 1, head.step = 1;
  } else {
    head.number_kind = packed_kind(sparse.value_kind), head.scale_kind = PackedScale::f32;
  }
  return head;
}

size_t kept_bytes(const PackedHead& head, uint64_t word) noexcept {
  const size_t count = size_t(std::popcount(word));
  return head.bits == 8 ? count : head.bits == 4 ? (count + 1) / 2 : count * bytes_of(head.number_kind);
}

// f(byte's place in the tile's panel, which of the row's kept values) for the kept weights of a tile's row.
template <class F>
void each_place(const Sparse& sparse, size_t row, std::vector<uint32_t>& columns, const F& f) {
  columns.resize(sparse.kept(row));
  sparse.columns_of(row, columns.data());
  for (size_t i = 0; i < columns.size(); ++i)
    f(columns[i] / 4 * 4 * kTileRows + 4 * (row % kTileRows) + columns[i] % 4, i);
}

// The words of a tile.
void mark(const Sparse& sparse, size_t tile, std::span<uint64_t> words) {
  std::ranges::fill(words, 0);
  std::vector<uint32_t> columns;
  for (size_t row = tile * kTileRows; row < std::min(sparse.rows, (tile + 1) * kTileRows); ++row)
    each_place(sparse, row, columns, [&](size_t at, size_t) { words[at / 64] |= uint64_t(1) << at % 64; });
}

// Bytes of every piece of every tile, masks and all, and a 0.
std::vector<uint64_t> piece_bytes(const Sparse& sparse, const PackedHead& head, const Layout& layout, int threads) {
  std::vector<uint64_t> bytes(size_t(layout.tiles * layout.pieces) + 1);
  parallel_for(size_t(layout.tiles), 1, threads, [&](size_t begin, size_t end) {
    std::vector<uint64_t> words(size_t(layout.padded_columns / kStepColumns) * kStepWords);
    for (size_t tile = begin; tile < end; ++tile) {
      mark(sparse, tile, words);
      for (size_t i = 0; i < words.size(); ++i)
        bytes[tile * size_t(layout.pieces) + i / (kPieceSteps * kStepWords)] += 8 + kept_bytes(head, words[i]);
    }
  });
  return bytes;
}

// A tile's stream. panel: kept values where their bytes of 8-bit codes would be, `size` bytes each.
void write_tile(const PackedHead& head, std::span<const uint64_t> words, const uint8_t* panel, size_t size,
                uint8_t* out) noexcept {
  for (size_t step = 0; step < words.size(); step += kStepWords) {
    std::memcpy(out, words.data() + step, kStepMaskBytes);
    out += kStepMaskBytes;
    for (size_t i = step; i < step + kStepWords; ++i) {
      size_t count = 0;
      for (uint64_t left = words[i]; left; left &= left - 1, ++count) {
        const uint8_t* const value = panel + (64 * i + size_t(std::countr_zero(left))) * size;
        if (head.bits != 4)
          std::memcpy(out + count * size, value, size);
        else
          out[count / 2] = count % 2 ? uint8_t(out[count / 2] | *value << 4) : *value;
      }
      out += kept_bytes(head, words[i]);
    }
  }
}

// Kept values of a tile, where their bytes of 8-bit codes would be.
void gather(const Sparse& sparse, size_t tile, size_t size, uint8_t* panel) {
  std::vector<uint32_t> columns;
  std::vector<uint8_t> codes;
  for (size_t row = tile * kTileRows; row < std::min(sparse.rows, (tile + 1) * kTileRows); ++row) {
    const uint8_t* from = nullptr;
    if (sparse.value_kind == NumberKind::none) {
      codes.resize(sparse.kept(row));
      sparse.unpack(sparse.start(row), codes.size(), codes.data());
      from = codes.data();
    } else {
      from = sparse.values + sparse.start(row) * size;
    }
    each_place(sparse, row, columns,
               [&](size_t at, size_t i) { std::memcpy(panel + at * size, from + i * size, size); });
  }
}

}  // namespace

const SparseKernels& sparse_kernels() noexcept {
  return TERSOR_X86(active_isa() >= Isa::avx512vbmi ? kAvx512VbmiSparseKernels :) kScalarSparseKernels;
}

uint64_t packed_bytes(const Sparse& sparse, int threads) {
  PackedHead head = head_of(sparse);
  const auto bytes = piece_bytes(sparse, head, Layout(head), threads);
  head.kept_bytes = std::accumulate(bytes.begin(), bytes.end(), uint64_t(0));
  return Layout(head).bytes;
}

void pack(const Sparse& sparse, std::span<uint8_t> out, int threads) {
  PackedHead head = head_of(sparse);
  auto starts = piece_bytes(sparse, head, Layout(head), threads);
  std::exclusive_scan(starts.begin(), starts.end(), starts.begin(), uint64_t(0));
  head.kept_bytes = starts.back();
  const Layout layout(head);
  layout.begin(head, out);
  uint8_t integers[256];
  float levels[256];
  for (int code = 0; code < 256; ++code)
    integers[code] = uint8_t(code), levels[code] = float(code) - float(head.center);
  fill_tables(out.data() + layout.tables, integers, levels, 256, 8);
  std::memcpy(out.data() + layout.tables + sizeof(Tables), starts.data(), starts.size() * sizeof(uint64_t));

  const size_t size = head.bits ? 1 : bytes_of(head.number_kind);
  const size_t groups = size_t(layout.groups), numbers = groups * kTileRows;
  std::memset(out.data() + layout.codes + head.kept_bytes, 0, size_t(layout.scales - layout.codes - head.kept_bytes));
  parallel_for(size_t(layout.tiles), 1, threads, [&](size_t begin, size_t end) {
    ScratchFrame scratch;
    const size_t places = size_t(layout.padded_columns) * kTileRows;
    const auto panel = scratch.bytes(places * size);
    std::vector<uint64_t> words(places / 64);
    for (size_t tile = begin; tile < end; ++tile) {
      mark(sparse, tile, words);
      gather(sparse, tile, size, panel.data());
      write_tile(head, words, panel.data(), size, out.data() + layout.codes + starts[tile * size_t(layout.pieces)]);
      const size_t first = tile * kTileRows, rows = std::min(kTileRows, sparse.rows - first);
      uint8_t* const scales = layout.numbers(out, layout.scales, tile);
      if (head.bits)
        pack_numbers(sparse.scales, head.scale_kind, first, rows, groups, std::min(groups, sparse.groups()), scales);
      else
        std::fill_n(reinterpret_cast<float*>(scales), numbers, 1.0f);
    }
  });
}

}  // namespace tersor::gemm
