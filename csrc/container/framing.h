// The bytes around chunks and index, shared by writer and reader.
#pragma once
#include <array>
#include <cstdint>

#include "container/index.h"

namespace tersor::container {

// Neither text nor UTF-8; the line ends and the end-of-file sign show what a text-mode copy has done to a file.
inline constexpr std::array<uint8_t, 8> kMagic = {0xd4, 't', 's', 'r', '\r', '\n', 0x1a, '\n'};
inline constexpr std::array<uint8_t, 8> kEndMagic = {0xd4, 't', 's', 'r', 'e', 'n', 'd', '\n'};

// header:  magic 8 | version u16 | optional features u16 | required features u32
// trailer: index offset u64 | index bytes u64 | CRC of the index u32 | CRC of all other framing u32 | magic 8
inline constexpr size_t kTrailerCrcAt = 20;

}  // namespace tersor::container
