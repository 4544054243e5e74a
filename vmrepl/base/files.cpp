#include "vmrepl/base/files.hpp"

#include <cerrno>
#include <filesystem>

#include <fcntl.h>
#include <sys/stat.h>

#include "vmrepl/base/unique_fd.hpp"

namespace havm {
namespace {

constexpr std::size_t file_bytes_max = std::size_t{16} << 20;

Result<void> write_all(int fd, const std::string& path, const std::string& content) {
  std::size_t done = 0;
  while (done < content.size()) {
    const ssize_t n = ::write(fd, content.data() + done, content.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return errno_error("cannot write " + path, errno);
    done += static_cast<std::size_t>(n);
  }
  return success();
}

}  // namespace

Result<void> sync_directory_of(const std::string& path) {
  const std::string parent = std::filesystem::path(path).parent_path().string();
  const UniqueFd dir(
      ::open(parent.empty() ? "." : parent.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!dir.valid()) return errno_error("cannot open directory " + parent, errno);
  if (::fsync(dir.get()) != 0) return errno_error("cannot sync directory " + parent, errno);
  return success();
}

Result<std::string> read_file(const std::string& path) {
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.valid()) return errno_error("cannot open " + path, errno);
  std::string content;
  char chunk[65536];
  while (true) {
    const ssize_t n = ::read(fd.get(), chunk, sizeof chunk);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return errno_error("cannot read " + path, errno);
    if (n == 0) return content;
    content.append(chunk, static_cast<std::size_t>(n));
    if (content.size() > file_bytes_max) return Error(path + " is larger than 16 MiB", EFBIG);
  }
}

Result<void> replace_file(const std::string& path, const std::string& content) {
  const std::string temporary = path + ".new";
  {
    const UniqueFd fd(::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0640));
    if (!fd.valid()) return errno_error("cannot create " + temporary, errno);
    BOOST_OUTCOME_TRY(write_all(fd.get(), temporary, content));
    if (::fsync(fd.get()) != 0) return errno_error("cannot sync " + temporary, errno);
  }
  if (::rename(temporary.c_str(), path.c_str()) != 0)
    return errno_error("cannot rename " + temporary + " to " + path, errno);
  return sync_directory_of(path);
}

Result<void> make_directories(const std::string& path) {
  std::string prefix;
  for (const auto& part : std::filesystem::path(path)) {
    prefix = prefix.empty() ? part.string() : (std::filesystem::path(prefix) / part).string();
    if (::mkdir(prefix.c_str(), 0750) != 0 && errno != EEXIST)
      return errno_error("cannot create directory " + prefix, errno);
  }
  return success();
}

Result<std::string> read_boot_id() {
  BOOST_OUTCOME_TRY(auto text, read_file("/proc/sys/kernel/random/boot_id"));
  while (!text.empty() && text.back() == '\n')
    text.pop_back();
  return text;
}

}  // namespace havm
