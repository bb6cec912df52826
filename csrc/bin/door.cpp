#include "bin/door.h"

#include <signal.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <new>

#include "checkpoint/temporaries.h"
#include "core/error.h"

namespace tersor::bin {
namespace {

extern "C" void leave(int signal) {
  checkpoint::remove_temporaries();
  ::_exit(128 + signal);
}

// The mapped input lost bytes under our hands: somebody cut the file, or the disk fails.
extern "C" void input_is_gone(int) {
  checkpoint::remove_temporaries();
  constexpr char kText[] = "the input can no longer be read: it was cut short, or its disk fails\n";
  [[maybe_unused]] const auto written = ::write(STDERR_FILENO, kText, sizeof kText - 1);
  ::_exit(1);
}

void install_handlers() {
  struct sigaction action{};
  action.sa_handler = leave;
  ::sigfillset(&action.sa_mask);
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) {
    struct sigaction before;
    // nohup and shells' background jobs ignore some: that stays.
    if (::sigaction(signal, nullptr, &before) == 0 && before.sa_handler != SIG_IGN)
      ::sigaction(signal, &action, nullptr);
  }
  action.sa_handler = input_is_gone;
  ::sigaction(SIGBUS, &action, nullptr);
  // A closed pipe and a file-size limit are errors of the call, which cleans up, and not the end.
  ::signal(SIGPIPE, SIG_IGN);
  ::signal(SIGXFSZ, SIG_IGN);
}

struct Usage {
  std::string text;
};

int threads_of(const std::string& text) {
  char* end = nullptr;
  const long count = std::strtol(text.c_str(), &end, 10);
  if (text.empty() || *end || count < 1 || count > 1024) throw Usage{"-T takes 1..1024 threads, not \"" + text + "\""};
  return int(count);
}

Arguments parse(const Door& door, int argc, char** argv) {
  Arguments arguments;
  bool only_names = false;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    if (only_names || word.size() < 2 || word[0] != '-') {
      arguments.names.push_back(word);
    } else if (word == "--") {
      only_names = true;
    } else if (word == "--verify" && door.has_verify) {
      arguments.verify = true;
    } else if (word == "--keep-going" && door.has_verify) {
      arguments.options.keep_going = true;
    } else if (word == "-f") {
      arguments.options.force = true;
    } else if (word == "--base") {
      if (++i == argc) throw Usage{"--base needs a file of tensors, a .tsr or a folder"};
      arguments.options.bases.push_back(argv[i]);
    } else if (word == "-T") {
      if (++i == argc) throw Usage{"-T needs a number of threads"};
      arguments.options.threads = threads_of(argv[i]);
    } else if (word.starts_with("-T")) {
      arguments.options.threads = threads_of(word.substr(2));
    } else if (door.has_levels && word.size() == 2 && word[1] >= '1' && word[1] <= '9') {
      arguments.options.level = word[1] - '0';
    } else {
      throw Usage{"unknown option " + word};
    }
  }
  const size_t needed = arguments.verify ? 1 : 2;
  if (arguments.names.size() != needed)
    throw Usage{std::to_string(needed) + " names are needed, " + std::to_string(arguments.names.size()) +
                " were given"};
  return arguments;
}

int report(const Door& door, const std::string& text, int code) {
  std::fprintf(stderr, "%s: %s\n", door.name, text.c_str());
  return code;
}

}  // namespace

int run(const Door& door, int argc, char** argv, const Work& work) {
  for (int i = 1; i < argc; ++i) {
    const std::string_view word = argv[i];
    if (word == "--") break;
    if (word == "-h" || word == "--help") return std::fputs(door.usage, stdout) < 0;
    if (word == "-V" || word == "--version") return std::printf("%s %s\n", door.name, TERSOR_VERSION) < 0;
  }
  try {
    install_handlers();
    const Arguments arguments = parse(door, argc, argv);
    const auto damaged = work(arguments);
    for (const std::string& line : damaged) report(door, "\"" + arguments.names[0] + "\": " + line, 1);
    return damaged.empty() ? 0 : 1;
  } catch (const Usage& usage) {
    return report(door, usage.text + " (-h says how)", 2);
  } catch (const Error& error) {
    const bool usage = error.code() == Code::bad_call || error.code() == Code::bad_type;
    return report(door, error.what(), usage ? 2 : error.code() == Code::interrupted ? 130 : 1);
  } catch (const std::bad_alloc&) {
    return report(door, "out of memory", 1);
  } catch (const std::exception& error) {
    return report(door, error.what(), 1);
  }
}

}  // namespace tersor::bin
