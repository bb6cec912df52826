#include "gemm/extras.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/bits.h"
#include "core/error.h"
#include "transform/hadamard.h"
#include "transform/permutation.h"

namespace tersor::gemm {
namespace {

constexpr const char* kWhat = "packed matrix's extras";
constexpr uint64_t kAlign = 64;
constexpr uint32_t kMostTransforms = 16;
constexpr size_t kLanes = 16;

struct Head {
  uint32_t transforms, reserved;
  uint64_t outliers, rank;
};

struct TransformHead {
  uint32_t kind, reserved;
  uint64_t seed;
};

constexpr uint64_t rounded_up(uint64_t value) noexcept { return (value + kAlign - 1) / kAlign * kAlign; }

bool has_numbers(Transform::Kind kind) noexcept {
  return kind == Transform::Kind::scales || kind == Transform::Kind::permutation;
}

// Takes sections one behind the other, each from a multiple of 64 bytes on.
struct Cursor {
  uint8_t* at;
  uint8_t* take(uint64_t bytes) noexcept {
    uint8_t* const here = at;
    at += rounded_up(bytes);
    return here;
  }
};

struct Reader {
  std::span<const uint8_t> left;
  const uint8_t* take(uint64_t bytes) {
    TERSOR_REQUIRE(rounded_up(bytes) <= left.size(), Code::bad_data, kWhat, ": ", rounded_up(bytes),
                   " bytes are needed, ", left.size(), " are left");
    const uint8_t* const here = left.data();
    left = left.subspan(size_t(rounded_up(bytes)));
    return here;
  }
};

}  // namespace

uint64_t Extras::bytes() const noexcept {
  if (empty()) return 0;
  uint64_t sum = rounded_up(sizeof(Head));
  for (const Transform& one : transforms)
    sum += rounded_up(sizeof(TransformHead)) + (has_numbers(one.kind) ? rounded_up(4 * columns) : 0);
  if (outliers) sum += rounded_up(4 * (rows + 1)) + 2 * rounded_up(4 * outliers);
  return sum + rounded_up(4 * rows * rank) + rounded_up(4 * rank * columns);
}

void Extras::write(std::span<uint8_t> out) const {
  TERSOR_REQUIRE(out.size() == bytes(), Code::bad_call, kWhat, ": ", bytes(), " bytes of room, not ", out.size());
  if (empty()) return;
  TERSOR_REQUIRE(transforms.size() <= kMostTransforms, Code::bad_call, kWhat, ": ", transforms.size(),
                 " transforms, at most ", kMostTransforms);
  std::memset(out.data(), 0, out.size());
  Cursor to{out.data()};
  const auto put = [&](const void* from, uint64_t size) { std::memcpy(to.take(size), from, size_t(size)); };
  const Head head{uint32_t(transforms.size()), 0, outliers, rank};
  put(&head, sizeof head);
  for (const Transform& one : transforms) {
    const TransformHead its{uint32_t(one.kind), 0, one.seed};
    put(&its, sizeof its);
    if (one.kind == Transform::Kind::scales) put(one.scales, 4 * columns);
    if (one.kind == Transform::Kind::permutation) put(one.order, 4 * columns);
  }
  if (outliers) put(row_starts, 4 * (rows + 1)), put(places, 4 * outliers), put(values, 4 * outliers);
  if (rank) put(u, 4 * rows * rank), put(v, 4 * rank * columns);
}

Extras Extras::parse(std::span<const uint8_t> data, size_t rows, size_t columns) {
  Extras extras;
  extras.rows = rows, extras.columns = columns;
  if (data.empty()) return extras;
  Reader from{data};
  Head head;
  std::memcpy(&head, from.take(sizeof head), sizeof head);
  TERSOR_REQUIRE(head.transforms <= kMostTransforms, Code::bad_data, kWhat, ": ", head.transforms,
                 " transforms, at most ", kMostTransforms);
  TERSOR_REQUIRE(head.outliers <= data.size() && head.rank <= std::min(rows, columns), Code::bad_data, kWhat, ": ",
                 head.outliers, " outliers in ", data.size(), " bytes, rank ", head.rank);
  const uint8_t* const first = from.left.data();
  for (uint32_t i = 0; i < head.transforms; ++i) {
    TransformHead its;
    std::memcpy(&its, from.take(sizeof its), sizeof its);
    TERSOR_REQUIRE(its.kind <= uint32_t(Transform::Kind::permutation), Code::bad_data, kWhat, ": transform ", its.kind);
    Transform one{Transform::Kind(its.kind), its.seed};
    if (has_numbers(one.kind)) {
      const uint8_t* const numbers = from.take(4 * columns);
      if (one.kind == Transform::Kind::scales)
        one.scales = reinterpret_cast<const float*>(numbers);
      else
        one.order = reinterpret_cast<const uint32_t*>(numbers);
    }
    extras.transforms.push_back(one);
  }
  extras.transform_bytes = {first, size_t(from.left.data() - first)};
  extras.outliers = size_t(head.outliers), extras.rank = size_t(head.rank);
  if (extras.outliers) {
    extras.row_starts = reinterpret_cast<const uint32_t*>(from.take(4 * (rows + 1)));
    extras.places = reinterpret_cast<const uint32_t*>(from.take(4 * extras.outliers));
    extras.values = reinterpret_cast<const float*>(from.take(4 * extras.outliers));
  }
  if (extras.rank) {
    extras.u = reinterpret_cast<const float*>(from.take(4 * rows * extras.rank));
    extras.v = reinterpret_cast<const float*>(from.take(4 * extras.rank * columns));
  }
  TERSOR_REQUIRE(from.left.empty(), Code::bad_data, kWhat, ": ", from.left.size(), " bytes too many");
  return extras;
}

Extras::Range Extras::outliers_of(size_t row) const noexcept {
  const size_t end = std::min<size_t>(row_starts[row + 1], outliers);
  return {std::min<size_t>(row_starts[row], end), end};
}

void Extras::transform(std::span<float> x, std::span<float> room, int threads) const {
  for (const Transform& one : transforms) switch (one.kind) {
      case Transform::Kind::hadamard: transform::hadamard(x, columns, one.seed, false, threads); break;
      case Transform::Kind::hadamard_without_signs: transform::hadamard(x, columns, {}, false, threads); break;
      case Transform::Kind::scales:
        for (size_t i = 0; i < x.size(); i += columns)
          for (size_t k = 0; k < columns; ++k) x[i + k] /= one.scales[k];
        break;
      case Transform::Kind::permutation:
        transform::permute_columns(x, {one.order, columns}, false, room, threads);
        std::copy(room.begin(), room.end(), x.begin());
        break;
    }
}

void Extras::restore(size_t row, std::span<float> weights, std::span<float> room) const {
  for (size_t i = transforms.size(); i-- > 0;) switch (const Transform& one = transforms[i]; one.kind) {
      case Transform::Kind::hadamard: transform::hadamard(weights, columns, one.seed, true, 1); break;
      case Transform::Kind::hadamard_without_signs: transform::hadamard(weights, columns, {}, true, 1); break;
      case Transform::Kind::scales:
        for (size_t k = 0; k < columns; ++k) weights[k] /= one.scales[k];
        break;
      case Transform::Kind::permutation:
        transform::permute_columns(weights, {one.order, columns}, true, room, 1);
        std::ranges::copy(room, weights.begin());
        break;
    }
  const Range own = outliers ? outliers_of(row) : Range{};
  for (size_t i = own.first; i < own.end; ++i) weights[std::min<size_t>(places[i], columns - 1)] += values[i];
  for (size_t r = 0; r < rank; ++r)
    for (size_t k = 0; k < columns; ++k) weights[k] += u[r * rows + row] * v[r * columns + k];
}

SideTokens::SideTokens(const Extras& extras, size_t tokens, ScratchFrame& scratch)
    : count(tokens), lanes(tokens == 1 ? 1 : kLanes) {
  columns = scratch.take<float>(blocks() * lanes * extras.columns);
  thin = scratch.take<float>(blocks() * lanes * extras.rank);
  if (lanes > 1) std::fill(columns.begin(), columns.end(), 0.0f);
}

void SideTokens::read(const Extras& extras, const float* x, size_t token) const noexcept {
  float* const to = columns.data() + token / lanes * lanes * extras.columns + token % lanes;
  for (size_t k = 0; k < extras.columns; ++k) to[k * lanes] = x[k];
}

namespace {

// sum[lane] = sum over k of weights[k] * x[k][lane], four sums side by side where there is one lane.
template <size_t kAtOnce, class Place>
void weighted_sum(const float* weights, size_t count, const float* x, const Place& place, float* sum) noexcept {
  if constexpr (kAtOnce == 1) {
    float four[4] = {};
    size_t i = 0;
    for (; i + 4 <= count; i += 4)
      for (size_t j = 0; j < 4; ++j) four[j] += weights[i + j] * x[place(i + j)];
    for (; i < count; ++i) four[0] += weights[i] * x[place(i)];
    sum[0] = (four[0] + four[1]) + (four[2] + four[3]);
  } else {
    float all[kAtOnce] = {};
    for (size_t i = 0; i < count; ++i) {
      const float* const row = x + place(i) * kAtOnce;
      for (size_t lane = 0; lane < kAtOnce; ++lane) all[lane] += weights[i] * row[lane];
    }
    std::copy_n(all, kAtOnce, sum);
  }
}

}  // namespace

void SideTokens::multiply(const Extras& extras, size_t block) const noexcept {
  const float* const x = columns.data() + block * lanes * extras.columns;
  const auto place = [](size_t k) { return k; };
  for (size_t r = 0; r < extras.rank; ++r) {
    float sums[kLanes];
    if (lanes == 1)
      weighted_sum<1>(extras.v + r * extras.columns, extras.columns, x, place, sums);
    else
      weighted_sum<kLanes>(extras.v + r * extras.columns, extras.columns, x, place, sums);
    for (size_t lane = 0; lane < lanes; ++lane) thin[(block * lanes + lane) * extras.rank + r] = sums[lane];
  }
}

void SideTokens::add(const Extras& extras, size_t first_row, size_t rows, size_t first, size_t end,
                     float* out) const noexcept {
  if (extras.outliers)
    for (size_t block = first / lanes; block * lanes < end; ++block)
      for (size_t n = 0; n < rows; ++n) {
        const auto [start, row_end] = extras.outliers_of(first_row + n);
        const size_t row_count = row_end - start;
        if (row_count == 0) continue;
        const float* const x = columns.data() + block * lanes * extras.columns;
        const auto place = [at = extras.places + start, last = extras.columns - 1](size_t i) {
          return std::min(size_t(at[i]), last);
        };
        float sums[kLanes];
        if (lanes == 1)
          weighted_sum<1>(extras.values + start, row_count, x, place, sums);
        else
          weighted_sum<kLanes>(extras.values + start, row_count, x, place, sums);
        for (size_t token = std::max(first, block * lanes); token < std::min(end, (block + 1) * lanes); ++token)
          out[(token - first) * 32 + n] += sums[token - block * lanes];
      }
  for (size_t token = first; extras.rank && token < end; ++token) {
    float* const to = out + (token - first) * 32;
    for (size_t r = 0; r < extras.rank; ++r) {
      const float one = thin[token * extras.rank + r];
      const float* const u = extras.u + r * extras.rows + first_row;
      for (size_t n = 0; n < rows; ++n) to[n] += one * u[n];
    }
  }
}

}  // namespace tersor::gemm
