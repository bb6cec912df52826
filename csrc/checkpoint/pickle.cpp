#include "checkpoint/pickle.h"

#include <string_view>
#include <utility>
#include <vector>

#include "core/bits.h"
#include "core/error.h"

namespace tersor::checkpoint {
namespace {

// What is on the machine's stack: an index into its values, so that memos and copies share.
using Ref = uint32_t;
using Storages = std::map<std::string, PickledStorage, std::less<>>;
constexpr Ref kNothing = UINT32_MAX;
constexpr size_t kMostValues = size_t(1) << 22, kMostKeyBytes = 256;

enum class What : uint8_t { other, none, mark, boolean, integer, text, global, sequence, dict, storage, tensor };
// What a value is made of lies in a table of its kind, so that the many small ones stay small.
struct Value {
  What what;
  uint32_t at;      // in the table; kNothing for sequences and dicts that are still empty
  int64_t integer;  // of integers and booleans
};
struct Global {
  std::string_view module, name;
};
struct Storage {
  std::string_view kind, key;
  uint64_t elements;
};
struct Tensor {
  Ref storage, offset, size, stride, dtype, metadata;  // the last two may be nothing
};

[[noreturn]] void refuse() { fail(Code::bad_data, "pickle: not one of a state dict"); }

std::optional<DType> dtype_of(std::string_view name);

class Machine {
 public:
  Machine(std::span<const uint8_t> pickle, Storages& found) : in_(pickle, "pickle"), pickle_(pickle), found_(found) {
    for (size_t what = 0; what <= size_t(What::sequence); ++what)
      values_.push_back({What(what), kNothing, 0});  // shared by all that say no more
  }

  Ref run() {
    for (;;) {
      const uint8_t op = in_.take<uint8_t>();
      if (op == '.') return pop();
      step(op);
    }
  }

  size_t size() const noexcept { return values_.size(); }
  const Value& operator[](Ref ref) const { return values_[ref]; }
  std::string_view text(Ref ref) const {
    return values_[ref].what == What::text ? texts_[values_[ref].at] : std::string_view();
  }
  const Storage* storage(Ref ref) const {
    return values_[ref].what == What::storage ? &storages_[values_[ref].at] : nullptr;
  }
  const Tensor& tensor(Ref ref) const { return tensors_[values_[ref].at]; }
  const Global* global(Ref ref) const {
    return values_[ref].what == What::global ? &globals_[values_[ref].at] : nullptr;
  }
  std::span<const Ref> items(Ref ref) const {  // of sequences; of dicts keys and values
    const Value& value = values_[ref];
    const bool has = (value.what == What::sequence || value.what == What::dict) && value.at != kNothing;
    return has ? std::span<const Ref>(items_[value.at]) : std::span<const Ref>();
  }
  Ref state(Ref ref) const {  // what BUILD gave an object
    const auto found = states_.find(ref);
    return found == states_.end() ? kNothing : found->second;
  }

 private:
  Ref make(What what, size_t at = kNothing, int64_t integer = 0) {
    if (values_.size() == kMostValues) refuse();
    values_.push_back({what, uint32_t(at), integer});
    return Ref(values_.size() - 1);
  }
  void push(Ref ref) { stack_.push_back(ref); }
  void push_shared(What what) { push(Ref(what)); }
  void push_integer(int64_t value) { push(make(What::integer, kNothing, value)); }
  void push_text(std::string_view text) {
    texts_.push_back(text);
    push(make(What::text, texts_.size() - 1));
  }
  void push_global(std::string_view module, std::string_view name) {
    globals_.push_back({module, name});
    push(make(What::global, globals_.size() - 1));
  }
  void push_sequence(std::vector<Ref>&& items) {
    if (items.empty()) return push_shared(What::sequence);
    items_.push_back(std::move(items));
    push(make(What::sequence, items_.size() - 1));
  }
  Ref pop() {
    if (stack_.empty()) refuse();
    const Ref top = stack_.back();
    stack_.pop_back();
    return top;
  }
  Ref top() const {
    if (stack_.empty()) refuse();
    return stack_.back();
  }
  std::vector<Ref> pop_to_mark() {
    size_t at = stack_.size();
    while (at > 0 && stack_[at - 1] != Ref(What::mark)) --at;
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
    const Ref to = top();
    if (to <= Ref(What::sequence)) return;  // an object of an unknown class, or a tuple
    Value& value = values_[to];
    if ((value.what != What::sequence && value.what != What::dict) || items.empty()) return;
    if (value.at == kNothing) items_.emplace_back(), value.at = uint32_t(items_.size() - 1);
    auto& held = items_[value.at];
    held.insert(held.end(), items.begin(), items.end());
  }
  std::string_view take_text(uint64_t bytes) {
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
      if (digit < '0' || digit > '9' || number > kMostValues) refuse();
      number = number * 10 + uint32_t(digit - '0');
    }
    return number;
  }
  void get(uint32_t index) {
    if (index >= memo_.size() || memo_[index] == kNothing) refuse();
    push(memo_[index]);
  }
  void put(size_t index) {
    if (index >= kMostValues) refuse();
    if (index >= memo_.size()) memo_.resize(index + 1, kNothing);
    memos_ += memo_[index] == kNothing;
    memo_[index] = top();
  }
  void push_long(uint64_t bytes) {  // little-endian two's complement
    const auto data = in_.take(bytes);
    if (bytes > 8) return push_shared(What::other);
    uint64_t number = 0;
    for (size_t i = 0; i < bytes; ++i) number |= uint64_t(data[i]) << (8 * i);
    const int unused = 64 - int(8 * bytes);
    push_integer(bytes == 0 ? 0 : int64_t(number << unused) >> unused);
  }

  // ("storage", class, key, location, elements), of older versions with one more.
  void persistent(Ref id) {
    const auto given = items(id);
    if (given.size() < 5 || given.size() > 6) return push_shared(What::other);
    const Global* const kind = global(given[1]);
    const auto key = text(given[2]);
    const Value& elements = values_[given[4]];
    if (!kind || key.empty() || key.size() > kMostKeyBytes || elements.what != What::integer || elements.integer < 0)
      return push_shared(What::other);
    auto& storage = found_[std::string(key)];
    if (!storage.dtype) storage.dtype = dtype_of(kind->name);
    storage.complex128 = kind->name == "ComplexDoubleStorage";
    storages_.push_back({kind->name, key, uint64_t(elements.integer)});
    push(make(What::storage, storages_.size() - 1));
  }

  // A call that is not made. Those that tensors are rebuilt with are known by name.
  void call(Ref callable, Ref arguments) {
    const Global* const function = global(callable);
    const auto given = items(arguments);
    if (!function) return push_shared(What::other);
    const auto name = function->name;
    if (function->module == "torch._utils") {
      const bool third = name == "_rebuild_tensor_v3";
      if (third || name == "_rebuild_tensor_v2" || name == "_rebuild_tensor") {
        if (given.size() < 4 || given.size() > 8) return push_shared(What::other);
        const auto argument = [&](size_t i) { return i < given.size() ? given[i] : kNothing; };
        tensors_.push_back(
            {given[0], given[1], given[2], given[3], third ? argument(6) : kNothing, argument(third ? 7 : 6)});
        return push(make(What::tensor, tensors_.size() - 1));
      }
      if (name.starts_with("_rebuild_parameter") && !given.empty()) return push(given[0]);
    }
    if (function->module == "collections" && (name == "OrderedDict" || name == "defaultdict"))
      return push(make(What::dict));
    push(make(What::other));  // its own, since BUILD may give it a state
  }

  void step(uint8_t op) {
    switch (op) {
      case 0x80: in_.take(1); return;  // PROTO
      case 0x95: in_.take(8); return;  // FRAME
      case '(': return push_shared(What::mark);
      case '0': pop(); return;
      case '1': pop_to_mark(); return;
      case '2': return push(top());
      case 'N': return push_shared(What::none);
      case 0x88: return push(make(What::boolean, kNothing, 1));
      case 0x89: return push_shared(What::boolean);
      case 'J': return push_integer(in_.take<int32_t>());
      case 'K': return push_integer(in_.take<uint8_t>());
      case 'M': return push_integer(in_.take<uint16_t>());
      case 0x8a: return push_long(in_.take<uint8_t>());
      case 0x8b: return push_long(in_.take<uint32_t>());
      case 'G': in_.take(8); return push_shared(What::other);
      case 'I':
      case 'L':
      case 'F':
      case 'S':
      case 'V': line(); return push_shared(What::other);
      case 'U':
      case 0x8c: return push_text(take_text(in_.take<uint8_t>()));
      case 'T':
      case 'X': return push_text(take_text(in_.take<uint32_t>()));
      case 0x8d: return push_text(take_text(in_.take<uint64_t>()));
      case 'C': take_text(in_.take<uint8_t>()); return push_shared(What::other);
      case 'B': take_text(in_.take<uint32_t>()); return push_shared(What::other);
      case 0x8e:
      case 0x96: take_text(in_.take<uint64_t>()); return push_shared(What::other);
      case ')': return push_shared(What::sequence);
      case ']':
      case 0x8f: return push(make(What::sequence));
      case 't':
      case 'l':
      case 0x91: return push_sequence(pop_to_mark());
      case 0x85: return push_sequence(pop_some(1));
      case 0x86: return push_sequence(pop_some(2));
      case 0x87: return push_sequence(pop_some(3));
      case 'a': return append(pop_some(1));
      case 'e':
      case 0x90: return append(pop_to_mark());
      case '}': return push(make(What::dict));
      case 'd': {
        auto items = pop_to_mark();
        push(make(What::dict));
        return append(items);
      }
      case 's': return append(pop_some(2));
      case 'u': return append(pop_to_mark());
      case 'c': {
        const auto module = line(), name = line();
        return push_global(module, name);
      }
      case 0x93: {
        const Ref name = pop(), module = pop();
        return push_global(text(module), text(name));
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
        if (top() > Ref(What::sequence)) states_.emplace(top(), state);
        return;
      }
      case 'h': return get(in_.take<uint8_t>());
      case 'j': return get(in_.take<uint32_t>());
      case 'g': return get(line_number());
      case 'q': return put(in_.take<uint8_t>());
      case 'r': return put(in_.take<uint32_t>());
      case 'p': return put(line_number());
      case 0x94: return put(memos_);
      case 'Q': return persistent(pop());
      default: refuse();  // INST, OBJ, PERSID, extensions, buffers out of band
    }
  }

  ByteReader in_;
  std::span<const uint8_t> pickle_;
  Storages& found_;
  std::vector<Value> values_;
  std::vector<std::string_view> texts_;
  std::vector<Global> globals_;
  std::vector<Storage> storages_;
  std::vector<Tensor> tensors_;
  std::vector<std::vector<Ref>> items_;
  std::map<Ref, Ref> states_;
  std::vector<Ref> stack_, memo_;
  size_t memos_ = 0;
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

// Walks what the pickle holds, naming storages by the keys that lead to the first tensor that fills them in order.
class Namer {
 public:
  Namer(const Machine& machine, Storages& found) : machine_(machine), found_(found), seen_(machine.size(), false) {}

  void walk(Ref ref, const std::string& path, int depth) {
    if (ref == kNothing || depth == 0 || seen_[ref]) return;
    seen_[ref] = machine_[ref].what == What::dict || machine_[ref].what == What::sequence;  // each once, in circles too
    const auto items = machine_.items(ref);
    switch (machine_[ref].what) {
      case What::tensor: return name(machine_.tensor(ref), path);
      case What::dict:
        for (size_t i = 0; i + 1 < items.size(); i += 2) enter(items[i + 1], path, key_of(items[i], i / 2), depth);
        break;
      case What::sequence:
        for (size_t i = 0; i < items.size(); ++i) enter(items[i], path, std::to_string(i), depth);
        break;
      default: break;
    }
    if (const Ref state = machine_.state(ref); state != kNothing) walk(state, path, depth - 1);
  }

 private:
  static constexpr size_t kMostPathBytes = 4096, kMostNamesBytes = size_t(1) << 26;

  std::string key_of(Ref key, size_t number) const {
    const Value& value = machine_[key];
    switch (value.what) {
      case What::text: return std::string(machine_.text(key).substr(0, kMostPathBytes + 1));
      case What::integer: return std::to_string(value.integer);
      case What::none: return "None";
      case What::boolean: return value.integer ? "True" : "False";
      default: return std::string("[").append(std::to_string(number)).append("]");
    }
  }

  void enter(Ref ref, const std::string& path, std::string&& key, int depth) {
    const What what = machine_[ref].what;
    if (what != What::tensor && what != What::dict && what != What::sequence && what != What::other) return;
    if (path.size() + key.size() >= kMostPathBytes) return;
    walk(ref, path.empty() ? key : path + "." + key, depth - 1);
  }

  bool numbers(Ref ref, Shape& out) const {
    const auto items = machine_.items(ref);
    if (machine_[ref].what != What::sequence || items.size() > kMostDims) return false;
    for (const Ref item : items) {
      if (machine_[item].what != What::integer || machine_[item].integer < 0) return false;
      out.push_back(uint64_t(machine_[item].integer));
    }
    return true;
  }

  // Metadata says that values are to be conjugated or negated: then the bytes are not what a reader should get.
  bool plain(const Tensor& tensor) const {
    const What what = tensor.metadata == kNothing ? What::none : machine_[tensor.metadata].what;
    return what == What::none || (what == What::dict && machine_.items(tensor.metadata).empty());
  }

  void name(const Tensor& tensor, const std::string& path) {
    const Storage* const held = machine_.storage(tensor.storage);
    if (!held) return;
    auto& storage = found_.find(held->key)->second;
    auto dtype = storage.dtype;
    uint64_t elements = held->elements;
    if (tensor.dtype != kNothing) {  // of a storage that counts bytes
      const Global* const given = machine_.global(tensor.dtype);
      dtype = given ? dtype_of(given->name) : std::nullopt;
      if (!dtype) return;
      if (!storage.dtype) storage.dtype = dtype;  // unless a tensor that fills it says otherwise
      if (elements % dtype_bytes(*dtype)) return;
      elements /= dtype_bytes(*dtype);
    }
    const Value& offset = machine_[tensor.offset];
    Shape shape, strides;
    if (storage.name || !dtype || !plain(tensor) || offset.what != What::integer || offset.integer != 0 ||
        !numbers(tensor.size, shape) || !numbers(tensor.stride, strides) || strides.size() != shape.size())
      return;
    uint64_t row = 1;
    bool in_order = true;
    for (size_t i = shape.size(); i-- > 0;) {
      in_order = in_order && (shape[i] == 1 || strides[i] == row);
      if (__builtin_mul_overflow(row, shape[i], &row)) return;
    }
    if (row != elements || (row > 0 && !in_order) || names_bytes_ + path.size() > kMostNamesBytes) return;
    names_bytes_ += path.size();
    storage.dtype = dtype, storage.name = path, storage.shape = std::move(shape);
  }

  const Machine& machine_;
  Storages& found_;
  std::vector<bool> seen_;
  size_t names_bytes_ = 0;
};

}  // namespace

Storages pickled_storages(std::span<const uint8_t> pickle) {
  constexpr int kMostDepth = 64;
  Storages found;
  try {
    Machine machine(pickle, found);
    const Ref result = machine.run();
    Namer(machine, found).walk(result, "", kMostDepth);
  } catch (const Error&) {  // what was found until then is true all the same
  }
  return found;
}

}  // namespace tersor::checkpoint
