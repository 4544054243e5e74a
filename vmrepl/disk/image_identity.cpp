#include "vmrepl/disk/image_identity.hpp"

#include <algorithm>
#include <cerrno>
#include <sstream>

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include "vmrepl/base/files.hpp"
#include "vmrepl/disk/nbd_disk.hpp"

namespace havm {
namespace {

constexpr const char* first_line = "havm-images 1";

struct Remembered {
  ImageIdentity identity;
  std::string disk;
};

// The name of a disk comes last: it may hold spaces.
Result<std::vector<Remembered>> parse(const std::string& text, const std::string& path) {
  std::istringstream lines(text);
  std::string line;
  std::vector<Remembered> all;
  bool good = std::getline(lines, line) && line == first_line;
  while (good && std::getline(lines, line)) {
    std::istringstream words(line);
    Remembered r;
    good =
        static_cast<bool>(words >> r.identity.inode >> r.identity.born_s >> r.identity.born_ns) &&
        words.get() == ' ' && std::getline(words, r.disk) && !r.disk.empty();
    all.push_back(std::move(r));
  }
  if (!good)
    return Error(path +
                     " is damaged: it tells which files the disk images are. If you know that "
                     "they are the right ones, remove it",
                 EINVAL);
  return all;
}

}  // namespace

std::string image_identities_path(const std::string& record_path) {
  return record_path + ".images";
}

Result<std::optional<ImageIdentity>> identity_of_image(const std::string& path) {
  if (NbdDisk::is_uri(path)) return std::optional<ImageIdentity>();
  struct statx st {};
  if (::statx(AT_FDCWD, path.c_str(), 0, STATX_INO | STATX_BTIME | STATX_TYPE, &st) != 0)
    return errno_error("cannot find disk image " + path, errno);
  struct statfs fs {};
  const bool told =
      S_ISREG(st.stx_mode) && ::statfs(path.c_str(), &fs) == 0 && fs.f_type != FUSE_SUPER_MAGIC;
  if (!told) return std::optional<ImageIdentity>();
  ImageIdentity identity;
  identity.inode = st.stx_ino;
  if ((st.stx_mask & STATX_BTIME) != 0) {
    identity.born_s = st.stx_btime.tv_sec;
    identity.born_ns = st.stx_btime.tv_nsec;
  }
  return std::optional<ImageIdentity>(identity);
}

Result<void> remember_images(const std::string& record_path,
                             const std::vector<NamedImage>& images) {
  std::ostringstream text;
  text << first_line << '\n';
  for (const NamedImage& image : images) {
    BOOST_OUTCOME_TRY(const auto identity, identity_of_image(image.path));
    if (identity)
      text << identity->inode << ' ' << identity->born_s << ' ' << identity->born_ns << ' '
           << image.disk << '\n';
  }
  return replace_file(image_identities_path(record_path), text.str());
}

Result<void> check_images(const std::string& record_path, const std::vector<NamedImage>& images) {
  const std::string file = image_identities_path(record_path);
  const auto text = read_file(file);
  if (!text && text.error().code == ENOENT) return success();
  if (!text) return text.error();
  BOOST_OUTCOME_TRY(const auto remembered, parse(text.value(), file));
  for (const NamedImage& image : images) {
    const auto known = std::find_if(remembered.begin(), remembered.end(),
                                    [&](const Remembered& r) { return r.disk == image.disk; });
    if (known == remembered.end()) continue;
    BOOST_OUTCOME_TRY(const auto now, identity_of_image(image.path));
    if (now && *now == known->identity) continue;
    return Error("disk " + image.disk + ": " + image.path +
                     " is another file than the one this replica was made on (inode " +
                     std::to_string(known->identity.inode) + " then, " +
                     (now ? std::to_string(now->inode) : "none") +
                     " now): it was replaced, restored or copied. Put the right one back; or, if "
                     "you copied it while no engine ran, say --adopt-images same; or, if it holds "
                     "anything else and the partner is up to date, --adopt-images other",
                 ESTALE);
  }
  return success();
}

}  // namespace havm
