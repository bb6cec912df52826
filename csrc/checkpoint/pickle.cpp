#include "checkpoint/pickle.h"

#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "core/bits.h"
#include "core/error.h"

namespace tersor::checkpoint {
namespace {

// What is on the machine's stack: an index into its values, so that memos and copies share.
using Ref = uint32_t;
constexpr Ref kNothing = UINT32_MAX;
constexpr size_t kMostValues = size_t(1) << 22;

enum class What : uint8_t { other, mark, boolean, integer, text, global, sequence, dict, storage, tensor };
struct Value {
  What what = What::other;
  uint64_t number = 0;          // an integer that is not negative
  std::string_view text = {};   // of texts; of globals the module
  std::string_view name = {};   // of globals
  std::vector<Ref> items = {};  // of sequences; of dicts keys and values; of storages and tensors what rebuilds them
  Ref state = kNothing;         // what BUILD gave an object
};

[[noreturn]] void refuse() { fail(Code::bad_data, "pickle: not one of a state dict"); }

class Machine {
 public:
  explicit Machine(std::span<const uint8_t> pickle) : in_(pickle, "pickle"), pickle_(pickle) {}

  Ref run() {
    for (;;) {
      const uint8_t op = in_.take<uint8_t>();
      if (op == '.') return pop();
      step(op);
    }
  }
  const Value& operator[](Ref ref) const { return values_[ref]; }
  size_t size() const noexcept { return values_.size(); }

 private:
  Ref make(Value&& value) {
    if (values_.size() == kMostValues) refuse();
    values_.push_back(std::move(value));
    return Ref(values_.size() - 1);
  }
  void push(Ref ref) { stack_.push_back(ref); }
  void push(What what) { push(make({what})); }
  void push_integer(int64_t value) { push(make({value < 0 ? What::other : What::integer, uint64_t(value)})); }
  void push_text(std::string_view text) { push(make({What::text, 0, text})); }
  void push_sequence(std::vector<Ref>&& items) {
    Value value{What::sequence};
    value.items = std::move(items);
    push(make(std::move(value)));
  }
  Ref pop() {
    if (stack_.empty()) refuse();
    const Ref top = stack_.back();
    stack_.pop_back();
    return top;
  }
  Value& top() {
    if (stack_.empty()) refuse();
    return values_[stack_.back()];
  }
  std::vector<Ref> pop_to_mark() {
    size_t at = stack_.size();
    while (at > 0 && values_[stack_[at - 1]].what != What::mark) --at;
    if (at == 0) refuse();
    std::vector<Ref> items(stack_.begin() + long(at), stack_.end());
    stack_.resize(at - 1);
    return items;
  }
  std::vector<Ref> pop_some(size_t count) {
    if (stack_.size() < count) refuse();
    std::vector<Ref> items(stack_.end() - long(count), stack_.end());
    stack_.resize(stack_.size() - count);
    return items;
  }
  void append(const std::vector<Ref>& items) {
    Value& to = top();
    to.items.insert(to.items.end(), items.begin(), items.end());
  }
  std::string_view text(uint64_t bytes) {
    const auto data = in_.take(bytes);
    return {reinterpret_cast<const char*>(data.data()), data.size()};
  }
  std::string_view line() {
    const auto rest = pickle_.last(in_.left());
    const std::string_view all(reinterpret_cast<const char*>(rest.data()), rest.size());
    const size_t end = all.find('\n');
    if (end == all.npos) refuse();
    in_.take(end + 1);
    return all.substr(0, end);
  }
  uint32_t line_number() {
    uint32_t number = 0;
    for (const char digit : line()) {
      if (digit < '0' || digit > '9' || number > UINT32_MAX / 10 - 1) refuse();
      number = number * 10 + uint32_t(digit - '0');
    }
    return number;
  }
  void get(uint32_t index) {
    const auto found = memo_.find(index);
    if (found == memo_.end()) refuse();
    push(found->second);
  }
  void put(uint32_t index) {
    if (stack_.empty()) refuse();
    memo_[index] = stack_.back();
  }
  void push_long(uint64_t bytes) {  // little-endian two's complement
    const auto data = in_.take(bytes);
    if (bytes > 8 || (bytes > 0 && data[bytes - 1] >= 0x80)) return push(What::other);
    uint64_t number = 0;
    for (size_t i = 0; i < bytes; ++i) number |= uint64_t(data[i]) << (8 * i);
    push(make({What::integer, number}));
  }
  void persistent(Ref id) {  // ("storage", class, key, location, elements)
    Value storage{What::storage};
    storage.items = values_[id].items;
    push(make(std::move(storage)));
  }

  // A call that is not made. Those that tensors are rebuilt with are known by name.
  void call(Ref callable, Ref arguments) {
    const Value& function = values_[callable];
    const auto& given = values_[arguments].items;
    if (function.what == What::global) {
      const bool torch = function.text == "torch._utils";
      if (torch && (function.name == "_rebuild_tensor_v2" || function.name == "_rebuild_tensor" ||
                    function.name == "_rebuild_tensor_v3")) {
        Value tensor{What::tensor};
        tensor.items = given;
        return push(make(std::move(tensor)));
      }
      if (torch && function.name.starts_with("_rebuild_parameter") && !given.empty()) return push(given[0]);
      if (function.text == "collections" && (function.name == "OrderedDict" || function.name == "defaultdict"))
        return push(What::dict);
    }
    push(What::other);
  }

  void step(uint8_t op) {
    switch (op) {
      case 0x80: in_.take(1); return;  // PROTO
      case 0x95: in_.take(8); return;  // FRAME
      case '(': return push(What::mark);
      case '0': pop(); return;
      case '1': pop_to_mark(); return;
      case '2':
        if (stack_.empty()) refuse();
        return push(stack_.back());
      case 'N': return push(What::other);
      case 0x88:
      case 0x89: return push(What::boolean);
      case 'J': return push_integer(in_.take<int32_t>());
      case 'K': return push_integer(in_.take<uint8_t>());
      case 'M': return push_integer(in_.take<uint16_t>());
      case 0x8a: return push_long(in_.take<uint8_t>());
      case 0x8b: return push_long(in_.take<uint32_t>());
      case 'G': in_.take(8); return push(What::other);
      case 'I':
      case 'L':
      case 'F':
      case 'S':
      case 'V': line(); return push(What::other);
      case 'U':
      case 0x8c: return push_text(text(in_.take<uint8_t>()));
      case 'T':
      case 'X': return push_text(text(in_.take<uint32_t>()));
      case 0x8d: return push_text(text(in_.take<uint64_t>()));
      case 'C': text(in_.take<uint8_t>()); return push(What::other);
      case 'B': text(in_.take<uint32_t>()); return push(What::other);
      case 0x8e:
      case 0x96: text(in_.take<uint64_t>()); return push(What::other);
      case ')':
      case ']':
      case 0x8f: return push(What::sequence);
      case 't':
      case 'l':
      case 0x91: return push_sequence(pop_to_mark());
      case 0x85: return push_sequence(pop_some(1));
      case 0x86: return push_sequence(pop_some(2));
      case 0x87: return push_sequence(pop_some(3));
      case 'a': return append(pop_some(1));
      case 'e':
      case 0x90: return append(pop_to_mark());
      case '}': return push(What::dict);
      case 'd': {
        auto items = pop_to_mark();
        push(What::dict);
        return append(items);
      }
      case 's': return append(pop_some(2));
      case 'u': return append(pop_to_mark());
      case 'c': {
        const auto module = line(), name = line();
        return push(make({What::global, 0, module, name}));
      }
      case 0x93: {
        const Ref name = pop(), module = pop();
        return push(make({What::global, 0, values_[module].text, values_[name].text}));
      }
      case 0x81:  // NEWOBJ
      case 'R': {
        const Ref arguments = pop(), callable = pop();
        return call(callable, arguments);
      }
      case 0x92: {
        pop();
        const Ref arguments = pop(), callable = pop();
        return call(callable, arguments);
      }
      case 'b': {
        const Ref state = pop();
        top().state = state;
        return;
      }
      case 'h': return get(in_.take<uint8_t>());
      case 'j': return get(in_.take<uint32_t>());
      case 'g': return get(line_number());
      case 'q': return put(in_.take<uint8_t>());
      case 'r': return put(in_.take<uint32_t>());
      case 'p': return put(line_number());
      case 0x94: return put(uint32_t(memo_.size()));
      case 'Q': return persistent(pop());
      default: refuse();  // INST, OBJ, PERSID, extensions, buffers out of band
    }
  }

  ByteReader in_;
  std::span<const uint8_t> pickle_;
  std::vector<Value> values_;
  std::vector<Ref> stack_;
  std::unordered_map<uint32_t, Ref> memo_;
};

std::optional<DType> dtype_of(std::string_view name) {
  constexpr std::pair<std::string_view, DType> kNames[] = {{"FloatStorage", DType::F32},
                                                           {"HalfStorage", DType::F16},
                                                           {"BFloat16Storage", DType::BF16},
                                                           {"DoubleStorage", DType::F64},
                                                           {"LongStorage", DType::I64},
                                                           {"IntStorage", DType::I32},
                                                           {"ShortStorage", DType::I16},
                                                           {"CharStorage", DType::I8},
                                                           {"ByteStorage", DType::U8},
                                                           {"BoolStorage", DType::BOOL},
                                                           {"ComplexFloatStorage", DType::C64},
                                                           {"uint16", DType::U16},
                                                           {"uint32", DType::U32},
                                                           {"uint64", DType::U64},
                                                           {"float8_e4m3fn", DType::F8_E4M3},
                                                           {"float8_e5m2", DType::F8_E5M2},
                                                           {"float8_e8m0fnu", DType::F8_E8M0}};
  for (const auto& [known, dtype] : kNames)
    if (known == name) return dtype;
  return std::nullopt;
}

// Walks what the pickle holds, naming tensors by the keys that lead to them.
class Namer {
 public:
  explicit Namer(const Machine& machine) : machine_(machine), seen_(machine.size(), false) {}

  void walk(Ref ref, const std::string& path, int depth) {
    constexpr size_t kMostPathBytes = 4096;
    if (ref == kNothing || depth == 0 || seen_[ref] || path.size() > kMostPathBytes) return;
    const Value& value = machine_[ref];
    seen_[ref] = true;  // a second way to the same thing would only name it twice
    switch (value.what) {
      case What::tensor: return name(value, path);
      case What::storage: storage(value); return;
      case What::dict:
        for (size_t i = 0; i + 1 < value.items.size(); i += 2)
          walk(value.items[i + 1], joined(path, value.items[i], i / 2), depth - 1);
        break;
      case What::sequence:
        for (size_t i = 0; i < value.items.size(); ++i) walk(value.items[i], joined(path, kNothing, i), depth - 1);
        break;
      default: break;
    }
    walk(value.state, path, depth - 1);
  }

  std::map<std::string, PickledStorage> take() { return std::move(found_); }

 private:
  std::string joined(const std::string& path, Ref key, size_t number) const {
    std::string part = std::to_string(number);
    if (key != kNothing && machine_[key].what == What::text) part = machine_[key].text;
    if (key != kNothing && machine_[key].what == What::integer) part = std::to_string(machine_[key].number);
    return path.empty() ? part : path + "." + part;
  }

  PickledStorage* storage(const Value& value) {
    if (value.items.size() < 5) return nullptr;
    const Value &kind = machine_[value.items[1]], &key = machine_[value.items[2]];
    if (kind.what != What::global || key.what != What::text) return nullptr;
    auto& storage = found_[std::string(key.text)];
    if (!storage.dtype) storage.dtype = dtype_of(kind.name);
    storage.complex128 = kind.name == "ComplexDoubleStorage";
    return &storage;
  }

  bool numbers(Ref ref, Shape& out) const {
    const Value& value = machine_[ref];
    if (value.what != What::sequence || value.items.size() > kMostDims) return false;
    for (const Ref item : value.items) {
      if (machine_[item].what != What::integer) return false;
      out.push_back(machine_[item].number);
    }
    return true;
  }

  // (storage, offset, size, stride, ..); version 3 has the dtype seventh.
  void name(const Value& tensor, const std::string& path) {
    if (tensor.items.size() < 4 || machine_[tensor.items[0]].what != What::storage) return;
    const Value& held = machine_[tensor.items[0]];
    PickledStorage* const to = storage(held);
    if (!to) return;
    if (tensor.items.size() > 6 && machine_[tensor.items[6]].what == What::global)
      to->dtype = dtype_of(machine_[tensor.items[6]].name);
    Shape shape, strides;
    const Value& offset = machine_[tensor.items[1]];
    if (!to->name.empty() || !to->dtype || offset.what != What::integer || offset.number != 0 ||
        !numbers(tensor.items[2], shape) || !numbers(tensor.items[3], strides) || strides.size() != shape.size())
      return;
    uint64_t row = 1;
    for (size_t i = shape.size(); i-- > 0;) {
      if (shape[i] > 1 && strides[i] != row) return;
      if (__builtin_mul_overflow(row, shape[i], &row)) return;
    }
    to->name = path, to->shape = std::move(shape);
  }

  const Machine& machine_;
  std::vector<bool> seen_;
  std::map<std::string, PickledStorage> found_;
};

}  // namespace

std::map<std::string, PickledStorage> pickled_storages(std::span<const uint8_t> pickle) {
  constexpr int kMostDepth = 64;
  try {
    Machine machine(pickle);
    const Ref result = machine.run();
    Namer namer(machine);
    namer.walk(result, "", kMostDepth);
    return namer.take();
  } catch (const Error&) {
    return {};
  }
}

}  // namespace tersor::checkpoint
