#include "core/arena.h"

#include <algorithm>
#include <cstdlib>
#include <vector>

#include "core/error.h"

namespace tersor {
namespace {

constexpr size_t kAlign = 64, kFirstBlock = size_t(1) << 20;

struct Block {
  uint8_t* data;
  size_t size;
};

// Blocks never move, so spans of outer frames stay valid while inner frames grow the arena.
struct Arena {
  std::vector<Block> blocks;
  size_t block = 0, used = 0;  // the block in use, and how far
  ~Arena() {
    for (const Block& b : blocks) std::free(b.data);
  }
};
thread_local Arena arena;

}  // namespace

ScratchFrame::ScratchFrame() noexcept : block_(arena.block), used_(arena.used) {}

ScratchFrame::~ScratchFrame() { arena.block = block_, arena.used = used_; }

std::span<uint8_t> ScratchFrame::bytes(size_t count) {
  TERSOR_REQUIRE(count < size_t(1) << 48, Code::environment, "scratch memory of ", count, " bytes asked");
  const size_t room = (count + kAlign + kAlign - 1) / kAlign * kAlign;  // kAlign readable bytes behind
  while (arena.block < arena.blocks.size() && arena.blocks[arena.block].size - arena.used < room)
    ++arena.block, arena.used = 0;
  if (arena.block == arena.blocks.size()) {
    const size_t size = std::max(room, arena.blocks.empty() ? kFirstBlock : 2 * arena.blocks.back().size);
    auto* data = static_cast<uint8_t*>(std::aligned_alloc(kAlign, size));
    TERSOR_REQUIRE(data, Code::environment, "no memory for ", size, " bytes of scratch");
    arena.blocks.push_back({data, size});
    arena.used = 0;
  }
  uint8_t* const at = arena.blocks[arena.block].data + arena.used;
  arena.used += room;
  return {at, count};
}

}  // namespace tersor
