// CRC-32C (Castagnoli, reflected, as in iSCSI RFC 3720): guards every chunk's stored bytes.
#pragma once
#include <cstdint>
#include <span>

namespace tersor {

// crc: the value for the bytes before `data`; 0 at the start. crc32c("123456789") = 0xE3069283.
uint32_t crc32c(std::span<const uint8_t> data, uint32_t crc = 0) noexcept;

// The variants work on the register, which is the complement of the value.
uint32_t crc32c_scalar(std::span<const uint8_t> data, uint32_t state) noexcept;
uint32_t crc32c_avx2(std::span<const uint8_t> data, uint32_t state) noexcept;

}  // namespace tersor
