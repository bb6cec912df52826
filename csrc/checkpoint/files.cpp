#include "checkpoint/files.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <utility>
#include <vector>

#include "core/error.h"

namespace tersor::checkpoint {
namespace {

std::string folder_of(const std::string& path) {
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? "." : slash == 0 ? "/" : path.substr(0, slash);
}

// Copies what can only be read once; the copy has no name, so nothing has to be removed.
FileDescriptor spooled(int from, Pace& pace) {
  const char* const asked = std::getenv("TMPDIR");
  std::string name = std::string(asked && *asked ? asked : "/tmp") + "/tersor-XXXXXX";
  FileDescriptor file(::mkostemp(name.data(), O_CLOEXEC));
  if (file.number() < 0) fail_errno("cannot create a temporary file " + name);
  ::unlink(name.c_str());
  std::vector<uint8_t> buffer(size_t(1) << 20);
  for (;;) {
    const ssize_t got = ::read(from, buffer.data(), buffer.size());
    if (got == 0) return file;
    if (got < 0 && errno != EINTR) fail_errno("cannot read standard input");
    pace.ask();
    for (ssize_t at = 0; at < got;) {
      const ssize_t put = ::write(file.number(), buffer.data() + at, size_t(got - at));
      if (put < 0 && errno != EINTR) fail_errno("cannot write a temporary file in " + folder_of(name));
      if (put > 0) at += put;
    }
  }
}

}  // namespace

std::string path_text(const std::string& path) { return path == "-" ? "standard input" : "\"" + path + "\""; }

FileDescriptor::FileDescriptor(FileDescriptor&& other) noexcept : number_(std::exchange(other.number_, -1)) {}

FileDescriptor& FileDescriptor::operator=(FileDescriptor&& other) noexcept {
  std::swap(number_, other.number_);
  return *this;
}

FileDescriptor::~FileDescriptor() {
  if (number_ >= 0) ::close(number_);
}

InputFile InputFile::open(const std::string& path, Pace& pace) {
  const bool standard = path == "-";
  FileDescriptor file(standard ? ::fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3)
                               : ::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (file.number() < 0) fail_errno("cannot open " + path_text(path));
  InputFile input;
  if (::fstat(file.number(), &input.status_) != 0) fail_errno("cannot look at " + path_text(path));
  TERSOR_REQUIRE(!S_ISDIR(input.status_.st_mode), Code::environment, path_text(path), " is a folder, a file is needed");
  struct stat mapped = input.status_;
  if (!S_ISREG(mapped.st_mode) || (standard && ::lseek(file.number(), 0, SEEK_CUR) != 0)) {
    file = spooled(file.number(), pace);
    if (::fstat(file.number(), &mapped) != 0) fail_errno("cannot look at a temporary file");
  }
  if (mapped.st_size == 0) return input;
  void* const at = ::mmap(nullptr, size_t(mapped.st_size), PROT_READ, MAP_SHARED, file.number(), 0);
  if (at == MAP_FAILED) fail_errno("cannot map " + path_text(path));
  input.bytes_ = {static_cast<const uint8_t*>(at), size_t(mapped.st_size)};
  return input;
}

InputFile::InputFile(InputFile&& other) noexcept : bytes_(std::exchange(other.bytes_, {})), status_(other.status_) {}

InputFile::~InputFile() {
  if (!bytes_.empty()) ::munmap(const_cast<uint8_t*>(bytes_.data()), bytes_.size());
}

void InputFile::expect_sequential() const noexcept {
  if (!bytes_.empty()) ::madvise(const_cast<uint8_t*>(bytes_.data()), bytes_.size(), MADV_SEQUENTIAL);
}

OutputFile::OutputFile(const std::string& path, const InputFile* input, const Options& options, Pace& pace)
    : path_(path), force_(options.force), pace_(pace) {
  if (path == "-") {
    TERSOR_REQUIRE(force_ || !::isatty(STDOUT_FILENO), Code::environment,
                   "standard output is a terminal: binary data is not written there");
    file_ = FileDescriptor(::fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3));
    struct stat there;
    if (file_.number() < 0 || ::fstat(file_.number(), &there) != 0) fail_errno("cannot write to standard output");
    blocks_ = !S_ISREG(there.st_mode);
    return;
  }
  TERSOR_REQUIRE(!path.empty(), Code::environment, "the output's name is empty");
  struct stat there;
  if (::stat(path.c_str(), &there) == 0) {
    TERSOR_REQUIRE(!S_ISDIR(there.st_mode), Code::environment, "\"", path, "\" is a folder, a file name is needed");
    if (!S_ISREG(there.st_mode)) {
      file_ = FileDescriptor(::open(path.c_str(), O_WRONLY | O_CLOEXEC));
      if (file_.number() < 0) fail_errno("cannot open \"" + path + "\"");
      return;
    }
    TERSOR_REQUIRE(!input || there.st_dev != input->status().st_dev || there.st_ino != input->status().st_ino,
                   Code::environment, "\"", path, "\" is the input, too: another output is needed");
    TERSOR_REQUIRE(force_, Code::environment, "\"", path, "\" exists; -f (force) overwrites it");
    // A link keeps pointing where it points: the file there is replaced.
    if (char* const target = ::realpath(path.c_str(), nullptr)) {
      path_ = target;
      std::free(target);
    }
  }
  const bool keep = input && options.keep_mode && S_ISREG(input->status().st_mode);
  if (keep) mode_ = input->status().st_mode & 0777;
  static std::atomic<unsigned> counter{0};
  for (int attempt = 0; file_.number() < 0; ++attempt) {
    temporary_ = Temporary(folder_of(path_) + "/.tersor-" + std::to_string(::getpid()) + "-" +
                           std::to_string(counter++) + ".tmp");
    // Until the mode is set, nobody reads what the input's mode might forbid.
    file_ =
        FileDescriptor(::open(temporary_.path().c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, keep ? 0600 : 0666));
    if (file_.number() >= 0) break;
    const int number = errno;
    temporary_.release();  // another's file, or none
    errno = number;
    if (errno != EEXIST || attempt == 100) fail_errno("cannot write into the folder of \"" + path + "\"");
  }
  seekable_ = true;
  blocks_ = false;
}

void OutputFile::fail_write() const {
  fail_errno(path_ == "-" ? "cannot write to standard output" : "cannot write \"" + path_ + "\"");
}

void OutputFile::write(std::span<const uint8_t> bytes) {
  if (seekable_) {
    write_at(written_, bytes);
    written_ += bytes.size();
    return;
  }
  while (!bytes.empty()) {
    const ssize_t put = ::write(file_.number(), bytes.data(), std::min(bytes.size(), size_t(1) << 20));
    if (put < 0 && errno != EINTR) fail_write();
    if (put < 0) pace_.ask();
    if (put > 0) bytes = bytes.subspan(size_t(put));
  }
}

void OutputFile::write_at(uint64_t offset, std::span<const uint8_t> bytes) {
  while (!bytes.empty()) {
    const ssize_t put = ::pwrite(file_.number(), bytes.data(), bytes.size(), off_t(offset));
    if (put < 0 && errno != EINTR) fail_write();
    if (put <= 0) continue;
    bytes = bytes.subspan(size_t(put));
    offset += uint64_t(put);
  }
}

void OutputFile::commit() {
  if (!seekable_) return;
  if (mode_ && ::fchmod(file_.number(), *mode_) != 0) fail_errno("cannot set the mode of \"" + path_ + "\"");
  if (::fsync(file_.number()) != 0) fail_write();
  const char* const from = temporary_.path().c_str();
  // Somebody may have made the file meanwhile: without force only an atomic "if it does not exist" will do.
  int failed =
      force_ ? ::rename(from, path_.c_str()) : ::renameat2(AT_FDCWD, from, AT_FDCWD, path_.c_str(), RENAME_NOREPLACE);
  if (failed && !force_ && (errno == EINVAL || errno == ENOSYS)) failed = ::link(from, path_.c_str()) || ::unlink(from);
  if (failed) {
    TERSOR_REQUIRE(errno != EEXIST, Code::environment, "\"", path_, "\" exists; -f (force) overwrites it");
    fail_errno("cannot rename to \"" + path_ + "\"");
  }
  temporary_.release();
  const FileDescriptor folder(::open(folder_of(path_).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (folder.number() >= 0) ::fsync(folder.number());  // file systems without this sync their names themselves
}

}  // namespace tersor::checkpoint
