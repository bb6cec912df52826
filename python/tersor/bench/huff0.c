// huff0 alone, in blocks of 128 KiB: zstd's entropy stage without its match finder, from the static library, whose
// archive still holds the functions that the shared one hides. Built at bench time; no part of tersor.
// A block: u32 stored bytes, then them. Equal to the block's length: raw. One byte: that byte repeated.
#include <stdint.h>
#include <string.h>
#include <zstd.h>

#if ZSTD_VERSION_NUMBER < 10504
#error "huff0's functions take their flags from zstd 1.5.4 on"
#endif

enum { kBlock = 128 << 10, kTableLog = 11, kSymbols = 255, kBmi2 = 1, kRoom = 1024 };

// As zstd 1.5.4 to 1.5.7 define them in lib/common/huf.h, which is not installed.
size_t HUF_compress4X_repeat(void* dst, size_t capacity, const void* src, size_t size, unsigned most_symbol,
                             unsigned table_log, void* scratch, size_t scratch_bytes, size_t* table, int* repeat,
                             int flags);
size_t HUF_decompress4X_hufOnly_wksp(uint32_t* table, void* dst, size_t size, const void* src, size_t src_bytes,
                                     void* scratch, size_t scratch_bytes, int flags);
unsigned HUF_isError(size_t code);

static int flags(void) { return __builtin_cpu_supports("bmi2") ? kBmi2 : 0; }

size_t huff0_bound(size_t size) { return size + 8 * (size / kBlock + 1) + kRoom; }

// Returns the bytes written, 0 on failure. `out` holds huff0_bound(size).
size_t huff0_encode(const uint8_t* in, size_t size, uint8_t* out) {
  static _Thread_local uint64_t scratch[2048];
  static _Thread_local size_t table[kSymbols + 2];
  uint8_t* p = out;
  for (size_t at = 0; at < size; at += kBlock) {
    const size_t block = size - at < kBlock ? size - at : kBlock;
    int repeat = 0;
    size_t stored = HUF_compress4X_repeat(p + 4, block + kRoom, in + at, block, kSymbols, kTableLog, scratch,
                                          sizeof scratch, table, &repeat, flags());
    if (HUF_isError(stored)) return 0;
    if (stored == 0 || stored >= block) {
      stored = block;
      memcpy(p + 4, in + at, block);
    } else if (stored == 1) {
      p[4] = in[at];
    }
    const uint32_t length = (uint32_t)stored;
    memcpy(p, &length, 4);
    p += 4 + stored;
  }
  return (size_t)(p - out);
}

// Returns 1 when exactly `size` bytes came out, else 0.
int huff0_decode(const uint8_t* in, size_t in_size, uint8_t* out, size_t size) {
  static _Thread_local uint64_t scratch[1024];
  static _Thread_local uint32_t table[1 + (1 << 12)];
  for (size_t at = 0; at < size; at += kBlock) {
    const size_t block = size - at < kBlock ? size - at : kBlock;
    uint32_t stored;
    if (in_size < 4) return 0;
    memcpy(&stored, in, 4);
    if (stored > in_size - 4) return 0;
    if (stored == block) {
      memcpy(out + at, in + 4, block);
    } else if (stored == 1) {
      memset(out + at, in[4], block);
    } else {
      table[0] = 12u * 0x01000001u;  // the capacity that zstd's own decoder gives, so it may pick single or double symbols
      if (HUF_decompress4X_hufOnly_wksp(table, out + at, block, in + 4, stored, scratch, sizeof scratch, flags()) !=
          block)
        return 0;
    }
    in += 4 + stored;
    in_size -= 4 + stored;
  }
  return in_size == 0;
}
