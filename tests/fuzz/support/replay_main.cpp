// The main of a target without libFuzzer: replays the kept corpus, or writes the target's seeds.
//   fuzz_TARGET DIRECTORY…        every file is one input; an empty directory is a failure
//   fuzz_TARGET --seeds DIRECTORY
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "tests/fuzz/support/fuzz_target.hpp"

namespace {

namespace fs = std::filesystem;
using havm::fuzz::bytes_of;

std::vector<fs::path> files_of(const fs::path& directory) {
  std::vector<fs::path> files;
  std::error_code ignored;  // a directory that is not there has no files: the caller says so
  for (const auto& entry : fs::directory_iterator(directory, ignored))
    if (entry.is_regular_file()) files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  return files;
}

bool replay(const fs::path& directory) {
  const std::vector<fs::path> files = files_of(directory);
  for (const fs::path& file : files) {
    std::ifstream stream(file, std::ios::binary);
    const std::string input((std::istreambuf_iterator<char>(stream)),
                            std::istreambuf_iterator<char>());
    if (!stream.good() && !stream.eof()) {
      std::fprintf(stderr, "cannot read %s\n", file.c_str());
      return false;
    }
    // Before it is run: after an abort this tells which one it was.
    std::fprintf(stderr, "input %s\n", file.filename().c_str());
    havm::fuzz::one_input(bytes_of(input));
  }
  std::printf("replayed %zu inputs of %s\n", files.size(), directory.c_str());
  if (!files.empty()) return true;
  std::fprintf(stderr, "%s holds no input: nothing was tested\n", directory.c_str());
  return false;
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  if (arguments.size() == 2 && arguments[0] == "--seeds")
    return havm::fuzz::write_seeds(arguments[1]) ? EXIT_SUCCESS : EXIT_FAILURE;
  if (arguments.empty()) {
    std::fprintf(stderr, "usage: %s DIRECTORY… | --seeds DIRECTORY\n", argv[0]);
    return EXIT_FAILURE;
  }
  for (const std::string& directory : arguments)
    if (!replay(directory)) return EXIT_FAILURE;
  return EXIT_SUCCESS;
}
