// One product of linear.cpp, cut into works: 32 rows of a matrix, or a run of them, for a piece of the tokens. It owns
// which kernel reads what: codes as they lie, panels, tables of products, levels, side terms.
#pragma once
#include <algorithm>
#include <cstdint>
#include <span>

#include "core/bits.h"
#include "gemm/extras.h"
#include "gemm/packed.h"
#include "gemm/tokens.h"

namespace tersor::gemm {

// Tokens from which on it pays to decode weights once for all of them rather than for four at a time. Codes of 4 bits
// without a table cost less than that in any case: their shifts and masks fit between the multiplications.
inline constexpr size_t kPanelTokens = 24;
// Columns of a panel of float32, which has to stay in the nearest cache, and the most that are summed before scaling.
inline constexpr size_t kFloatColumns = 128;

// A product whose tokens are read.
struct Plan {
  const Packed& weights;
  const Tokens& tokens;
  const SideTokens& side;
  std::span<const float> bias;
  DType y_dtype;
  uint8_t* y;
  size_t pieces, piece;   // its tokens are cut so
  size_t run;             // tiles of a work
  size_t first_work = 0;  // works of the plans before

  size_t runs() const noexcept { return size_t(ceil_div(weights.tiles, run)); }
  size_t works() const noexcept { return runs() * pieces; }
  // 32 rows of the matrix, or a run of them, for a piece of the tokens.
  void work(size_t number) const;

 private:
  struct Span {
    size_t tile, end_tile;
    size_t first, end;  // tokens
    float* sums;        // [tile][token][32]
    float* added;       // [token][32] of what is not scaled, for one tile at a time; null: nothing
    size_t tile_sums() const noexcept { return (end - first) * kTileRows; }
  };
  // Of all tiles.
  void integers(const Span& span) const;
  void look_up(const Span& span) const;
  void halves(const Span& span) const;
  // Of one tile.
  void byte_panels(IntegerTile t, const Span& span) const;
  void integer_panels(IntegerTile t, const Span& span) const;
  void decoded_integers(const Span& span) const;
  void half_panels(FloatTile t, const Span& span) const;
  void floats(const Span& span) const;
  void large_elements(const Span& span) const;
  void finish(const Span& span) const noexcept;

  // f(span of one tile) for every tile.
  template <class F>
  static void each_tile(Span span, const F& f) {
    for (const size_t end = span.end_tile; span.tile < end; ++span.tile, span.sums += span.tile_sums()) {
      span.end_tile = span.tile + 1;
      f(span);
    }
  }
  // kernel(tile, tokens) for all of the span's, from `column` on.
  template <class Tile, class Kernel>
  void all_tokens(Tile& t, size_t column, const Span& span, const Kernel& kernel) const;
  // The same for all tiles, whose codes are read as they lie.
  template <class Tile, class Kernel>
  void whole_tiles(Tile& t, const Span& span, const Kernel& kernel) const;

  void float_panel(size_t tile, size_t column, size_t columns, float* out) const;
  void at_column(TileGroups& t, size_t tile, size_t column, size_t columns) const noexcept;
  template <class Tile>
  void at_token(Tile& t, size_t column, size_t token, const Span& span) const noexcept;

  // f(column, columns) for every panel of columns.
  template <class F>
  void each_panel(TileGroups& t, size_t tile, size_t panel_columns, const F& f) const {
    for (size_t column = 0; column < weights.padded_columns; column += panel_columns) {
      const size_t columns = std::min(panel_columns, weights.padded_columns - column);
      at_column(t, tile, column, columns);
      f(column, columns);
    }
  }
};

// Columns that share a scale; of whole rows those that are summed before they are scaled.
size_t scale_group(const Packed& weights) noexcept;
// Whether a few tokens' products with all codewords are looked up. Tables are made anew for every run of tiles, which
// begins at an even one.
bool looks_up(const Packed& weights, const Tokens& tokens) noexcept;

}  // namespace tersor::gemm
