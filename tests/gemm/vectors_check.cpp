// Vector codebooks: beside doubles, and the same bits on every level, by panels and by tables of products.
#include "gemm/vectors.h"

#include <algorithm>
#include <cstring>

#include "check.h"
#include "gemm/products.h"
#include "levels.h"

using namespace tersor;
using namespace tersor::gemm;
using namespace tersor::gemm::check;
using tersor::check::each_isa;
using tersor::check::error_of;

namespace {

struct CodebookCase {
  size_t rows, columns;
  int dimension, stages;
  size_t entries;
  bool wide = false;  // codebooks of the largest and the least numbers only
};

struct MadeVectors {
  formats::VectorCodes view;
  std::vector<uint8_t> codes;
  std::vector<uint16_t> codebook, scales;
};

// Entries are whole numbers whose ranges add up to 255 less the stages, so that 8 bits hold them as they are.
void make(const CodebookCase& shape, MadeVectors& made, uint32_t seed) {
  std::mt19937 random(seed);
  formats::VectorCodes& view = made.view;
  view = {};
  view.rows = shape.rows, view.columns = shape.columns, view.dimension = shape.dimension, view.stages = shape.stages;
  view.entries = shape.entries, view.bits = int(std::bit_width(shape.entries - 1));
  const size_t vectors = view.vectors(), d = size_t(shape.dimension);
  view.row_bytes = (vectors * size_t(view.bits) + 7) / 8;
  std::vector<uint16_t> codes(size_t(shape.stages) * shape.rows * vectors);
  for (auto& code : codes) code = uint16_t(random() % shape.entries);
  made.codes.resize(size_t(shape.stages) * shape.rows * view.row_bytes);
  formats::pack_wide_rows(codes, view.bits, shape.entries, size_t(shape.stages) * shape.rows, vectors, made.codes, 1);
  view.codes = made.codes.data();
  int left = 255 - shape.stages;
  for (int s = 0; s < shape.stages; ++s) {
    const int range = s + 1 == shape.stages ? left : left / 2, least = -(range / 3);
    left -= range;
    for (size_t i = 0; i < shape.entries * d; ++i) {
      const int steps = i == 0                                   ? 0
                        : i == 1 || (shape.wide && random() % 2) ? range
                                                                 : int(random() % unsigned(range + 1));
      made.codebook.push_back(formats::f16_of_f32(float(shape.wide && i > 1 && steps < range ? least : least + steps)));
    }
  }
  view.codebook = reinterpret_cast<const uint8_t*>(made.codebook.data());
  for (size_t n = 0; n < shape.rows; ++n)
    made.scales.push_back(formats::f16_of_f32(0.001f + 0.0001f * float(random() % 100)));
  view.scales.kind = NumberKind::f16, view.scales.row_stride = 1;
  view.scales.data = reinterpret_cast<const uint8_t*>(made.scales.data());
}

const CodebookCase kShapes[] = {
    {48, 192, 8, 2, 256},   {33, 4304, 8, 1, 256},  {100, 1304, 8, 4, 256},     {65, 700, 8, 3, 256},
    {1, 1, 8, 1, 256},      {130, 129, 8, 2, 256},  {40, 600, 8, 2, 256, true}, {40, 600, 8, 1, 256, true},
    {48, 192, 8, 1, 16},    {33, 1030, 4, 2, 4096}, {33, 700, 3, 4, 1000},      {40, 1030, 5, 1, 256},
    {40, 700, 6, 2, 300},   {40, 700, 7, 2, 64},    {40, 1, 2, 1, 2},           {70, 1025, 2, 2, 4096},
    {70, 1025, 8, 1, 4096},
};

}  // namespace

TEST_CASE("gemm vectors: codebooks of every size give what doubles give") {
  uint32_t seed = 0;
  for (const CodebookCase& shape : kShapes) {
    MadeVectors made;
    make(shape, made, ++seed);
    Blob blob(made.view);
    for (const size_t tokens : {1, 3, 30}) {
      const auto x = gaussian(tokens * shape.columns, seed);
      for (const Activations activations : {Activations::int8, Activations::int8_g128, Activations::exact})
        CHECK(worst_error(made.view, x, tokens, product(x, tokens, blob, activations), activations) < 1e-6);
    }
  }
}

TEST_CASE("gemm vectors: the same bits on every level, however many work, beside any other tokens") {
  uint32_t seed = 100;
  for (const CodebookCase& shape : kShapes) {
    MadeVectors made;
    make(shape, made, ++seed);
    Blob blob(made.view, 3);
    const size_t most = 9;
    auto x = gaussian(most * shape.columns, seed);
    // Tokens whose products need a third byte, all of one sign and of both.
    for (size_t k = 0; k < shape.columns; ++k) x[k] = 1, x[shape.columns + k] = k % 3 ? 2.0f : -2.0f;
    for (const Activations activations : {Activations::int8, Activations::int8_g128}) {
      const auto want = product(x, most, blob, activations);
      each_isa([&] {
        for (const int threads : {1, 3})
          for (const size_t tokens : {1, 2, 4, 5}) {
            const auto got = product(x, tokens, blob, activations, threads);
            CHECK(std::memcmp(got.data(), want.data(), 4 * got.size()) == 0);
          }
      });
    }
  }
}

TEST_CASE("gemm vectors: any codebook is within half a step a stage of its bytes") {
  MadeVectors made;
  make({40, 256, 8, 2, 256}, made, 1);
  const auto entries = gaussian(made.codebook.size(), 2);
  for (size_t i = 0; i < entries.size(); ++i) made.codebook[i] = formats::f16_of_f32(entries[i] + 3);
  Blob blob(made.view);
  const Packed packed = Packed::parse(blob.bytes());
  const Vectors& vectors = packed.vectors;
  int most[2] = {}, center = 0;
  for (int s = 0; s < 2; ++s) {
    int offset = 0;  // of the stage: where an entry is 0
    float least = 0;
    for (size_t i = 0; i < 2048; ++i) least = std::min(least, formats::f32_of_f16(made.codebook[size_t(s) * 2048 + i]));
    offset = -int(std::nearbyint(least / packed.head.step)), center += offset;
    for (size_t i = 0; i < 2048; ++i) {
      const int byte = int(vectors.words[size_t(s) * 256 + i / 8] >> i % 8 * 8 & 255);
      most[s] = std::max(most[s], byte);
      const float held = packed.head.step * float(byte - offset);
      CHECK(std::fabs(held - formats::f32_of_f16(made.codebook[size_t(s) * 2048 + i])) <= 0.501f * packed.head.step);
    }
  }
  CHECK(center == packed.head.center);
  CHECK(most[0] + most[1] <= 255);
}

TEST_CASE("gemm vectors: a head that lies is refused, or what it says lies inside") {
  MadeVectors made;
  make({40, 200, 8, 2, 256}, made, 1);
  Blob blob(made.view);
  const auto bytes = blob.bytes();
  const std::vector<float> x(200, 1);
  std::vector<uint8_t> y(160);
  for (size_t i = 0; i < sizeof(PackedHead); ++i)
    for (int bit = 0; bit < 8; ++bit) {
      bytes[i] ^= uint8_t(1 << bit);
      const std::string error = error_of([&] {
        const Packed taken = Packed::parse(bytes);
        if (taken.head.rows != 40 || taken.head.columns != 200) return;
        for (const Activations activations : {Activations::int8, Activations::exact})
          one_linear(matrix_of(x, 1, 200), taken, {DType::F32, nullptr, 0, 0}, activations, DType::F32, y, 1);
      });
      bytes[i] ^= uint8_t(1 << bit);
    }
  CHECK(error_of([&] { Packed::parse(bytes); }) == "");
  for (size_t cut = 0; cut < bytes.size(); cut += 999) CHECK(error_of([&] { Packed::parse(bytes.first(cut)); }) != "");
}
