// libFuzzer target: whatever bytes come, decoding a range or an adaptive stream ends in an Error or in as many bins or
// symbols as were asked for. The last byte chooses: bytes read as a stream, or coded, wanted back, and damaged.
#include <algorithm>
#include <memory>
#include <vector>

#include "entropy/adaptive.h"
#include "entropy/range.h"
#include "fuzz/alike.h"

using namespace tersor;
using namespace tersor::entropy;

namespace {

constexpr uint64_t kMostSymbols = uint64_t(4) << 20;  // a few honest bytes may stand for many symbols
constexpr size_t kContexts = 40, kSpan = 6;

struct Call {
  int kind, width, order;
  size_t count;
};

// Two bytes of a script are a call.
std::vector<Call> calls_of(std::span<const uint8_t> script) {
  std::vector<Call> calls;
  for (size_t i = 0; i + 1 < script.size(); i += 2)
    calls.push_back({script[i] % 3, 1 + script[i] / 8, script[i] / 8, size_t(script[i + 1])});
  return calls;
}

std::vector<uint8_t> contexts_of(const Call& call) {
  std::vector<uint8_t> contexts(call.count);
  for (size_t i = 0; i < call.count; ++i) contexts[i] = uint8_t(i * size_t(call.width) % (kContexts - kSpan));
  return contexts;
}

void range_decode(std::span<const uint8_t> data, const std::vector<Call>& calls, std::vector<uint32_t>* out) {
  range::Decoder decoder(data, kContexts, {}, {});
  for (const Call& call : calls) {
    const auto contexts = contexts_of(call);
    std::vector<uint8_t> bins(call.count);
    std::vector<uint32_t> values(call.count);
    if (call.kind == 0) {
      decoder.decode(std::span<const uint8_t>(contexts), bins);
      values.assign(bins.begin(), bins.end());
    }
    if (call.kind == 1) decoder.decode_bypass(call.width, values);
    if (call.kind == 2)
      decoder.decode_exp_golomb(std::span<const uint8_t>(contexts), kSpan, call.order, call.width % 2, values);
    if (out) out->insert(out->end(), values.begin(), values.end());
  }
  decoder.finish();
}

// The first half of the bytes says what is done, the second with which values.
void range_wanted_back(std::span<const uint8_t> bytes) {
  const auto calls = calls_of(bytes.first(std::min<size_t>(bytes.size() / 2, 400)));
  const auto source = bytes.subspan(bytes.size() / 2);
  range::Encoder encoder(kContexts, {}, {});
  std::vector<uint32_t> given, found;
  size_t at = 0;
  const auto next = [&] { return source[at++ % source.size()]; };
  for (const Call& call : calls) {
    const auto contexts = contexts_of(call);
    std::vector<uint8_t> bins(call.count);
    std::vector<uint32_t> values(call.count);
    for (size_t i = 0; i < call.count; ++i) {
      bins[i] = next() & 1;
      values[i] = uint32_t(next()) << 24 | uint32_t(next()) << 9 | next();
      values[i] >>= call.kind == 1 ? 32 - call.width : next() % 32;
      if (call.kind == 0) values[i] = bins[i];
    }
    if (call.kind == 0) encoder.encode(bins, std::span<const uint8_t>(contexts));
    if (call.kind == 1) encoder.encode_bypass(values, call.width);
    if (call.kind == 2)
      encoder.encode_exp_golomb(values, std::span<const uint8_t>(contexts), kSpan, call.order, call.width % 2);
    given.insert(given.end(), values.begin(), values.end());
  }
  const auto coded = encoder.finish();
  range_decode(coded, calls, &found);
  if (found != given) std::abort();
  fuzz::damaged(coded, source.empty() ? 0 : source[0] * 2654435761u, [&](std::span<const uint8_t> bad) {
    try {
      range_decode(bad, calls, nullptr);
    } catch (const Error&) {
    }
  });
}

void adaptive_decode(std::span<const uint8_t> data) {
  try {
    const uint64_t symbols = adaptive::decoded_size(data);
    if (symbols > kMostSymbols) return;
    std::vector<uint8_t> out(static_cast<size_t>(symbols));
    adaptive::decode(data, out);
  } catch (const Error&) {
  }
}

void adaptive_wanted_back(std::span<const uint8_t> bytes, adaptive::Model model) {
  std::vector<uint8_t> symbols(bytes.begin(), bytes.end());
  if (model.bits == 4)
    for (uint8_t& symbol : symbols) symbol &= 15;
  const auto coded = adaptive::encode(symbols, model);
  if (coded.size() > adaptive::encode_bound(symbols.size())) std::abort();
  std::vector<uint8_t> back(symbols.size());
  adaptive::decode(coded, back);
  fuzz::want_equal(back, symbols);
  fuzz::damaged(coded, symbols.empty() ? 0 : symbols[0] * 2654435761u, adaptive_decode);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const fuzz::Copy copy(data, size - 1);
  const auto bytes = copy.bytes();
  const uint8_t choice = data[size - 1];
  switch (choice % 4) {
    case 0: adaptive_decode(bytes); break;
    case 1: {
      try {
        const size_t script = std::min<size_t>(bytes.size(), 60);
        range_decode(bytes.subspan(script), calls_of(bytes.first(script)), nullptr);
      } catch (const Error&) {
      }
      break;
    }
    case 2: range_wanted_back(bytes); break;
    default: adaptive_wanted_back(bytes, {choice & 4 ? 4 : 8, choice >> 3 & 1, 4 + (choice >> 4) % 6});
  }
  return 0;
}
