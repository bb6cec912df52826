#include "core/crc32c.h"

#include "core/isa.h"

namespace tersor {
namespace {

constexpr Variant<uint32_t(std::span<const uint8_t>, uint32_t) noexcept> kCrc32c[] = {
    {Isa::scalar, crc32c_scalar}, TERSOR_X86({Isa::avx2, crc32c_avx2}, )};

}  // namespace

uint32_t crc32c(std::span<const uint8_t> data, uint32_t crc) noexcept { return ~pick(kCrc32c)(data, ~crc); }

}  // namespace tersor
