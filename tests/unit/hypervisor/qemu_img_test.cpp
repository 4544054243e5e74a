#include "hypervisor/qemu_img/qemu_img.hpp"

#include <cerrno>

#include <gmock/gmock.h>
#include <sys/stat.h>

#include "tests/unit/hypervisor/test_files.hpp"

namespace havm {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr std::uint64_t mib = std::uint64_t{1} << 20;

class QemuImgTest : public testing::Test {
 protected:
  // Runs qemu-img (or qemu-io) itself, to prepare and to judge.
  void tool(const std::vector<std::string>& argv) {
    const auto outcome = run_process(argv);
    ASSERT_TRUE(outcome) << outcome.error().message;
    ASSERT_EQ(outcome.value().exit_status, 0) << outcome.value().err;
  }
  std::string image(const std::string& name, const std::string& format, std::uint64_t size = mib) {
    const std::string path = directory / name;
    const auto made = qemu_img.create(path, format, size);
    EXPECT_TRUE(made) << made.error().message;
    return path;
  }

  TemporaryDirectory directory;
  QemuImg qemu_img;
};

TEST_F(QemuImgTest, info_of_raw) {
  const std::string path = image("a.img", "raw", 8 * mib);
  const auto info = qemu_img.info(path, "raw");
  ASSERT_TRUE(info) << info.error().message;
  EXPECT_EQ(info.value().format, "raw");
  EXPECT_EQ(info.value().virtual_size_bytes, 8 * mib);
  EXPECT_EQ(info.value().file_size_bytes, 8 * mib);
  EXPECT_LT(info.value().actual_size_bytes, mib);
  EXPECT_THAT(info.value().snapshots, IsEmpty());
}

TEST_F(QemuImgTest, info_of_qcow2_with_everything) {
  const std::string base = image("base.qcow2", "qcow2", 8 * mib);
  const std::string path = directory / "top.qcow2";
  tool({"qemu-img", "create", "-q", "-f", "qcow2", "-o",
        "cluster_size=128k,extended_l2=on,refcount_bits=8", "-b", "base.qcow2", "-F", "qcow2",
        path});
  tool({"qemu-img", "snapshot", "-c", "before upgrade", path});
  const auto info = qemu_img.info(path, "qcow2");
  ASSERT_TRUE(info) << info.error().message;
  EXPECT_EQ(info.value().format, "qcow2");
  EXPECT_EQ(info.value().virtual_size_bytes, 8 * mib);
  EXPECT_EQ(info.value().backing_file, "base.qcow2");
  EXPECT_EQ(info.value().compat, "1.1");
  EXPECT_EQ(info.value().cluster_size_bytes, 128U << 10);
  EXPECT_EQ(info.value().refcount_bits, 8U);
  EXPECT_TRUE(info.value().extended_l2);
  EXPECT_FALSE(info.value().dirty);
  EXPECT_FALSE(info.value().corrupt);
  EXPECT_THAT(info.value().snapshots, ElementsAre("before upgrade"));
  EXPECT_GT(info.value().file_size_bytes, 0U);
}

TEST_F(QemuImgTest, info_sees_a_data_file_and_the_dirty_flag) {
  const std::string with_data = directory / "d.qcow2";
  tool({"qemu-img", "create", "-q", "-f", "qcow2", "-o",
        "data_file=" + (directory / "d.raw") + ",data_file_raw=on", with_data, "1M"});
  EXPECT_EQ(qemu_img.info(with_data, "qcow2").value().data_file, directory / "d.raw");

  const std::string dirty = directory / "dirty.qcow2";
  tool({"qemu-img", "create", "-q", "-f", "qcow2", "-o", "lazy_refcounts=on", dirty, "1M"});
  // qemu-io's abort leaves the file as a crash of QEMU would.
  ASSERT_TRUE(run_process({"qemu-io", "-c", "write 0 64k", "-c", "flush", "-c", "abort", dirty}));
  EXPECT_TRUE(qemu_img.info(dirty, "qcow2").value().dirty);
}

TEST_F(QemuImgTest, paths_are_never_interpreted) {
  for (const char* name : {"with space.img", "it's \"quoted\".img", "nbd:localhost:1.img", "-f.img",
                           "json:{\"driver\":\"null-co\"}", "a,b=c.img", "$(id) `id`;&|*?.img",
                           "new\nline.img", "ümläut.img", "%s%n.img"}) {
    const std::string path = image(name, "raw");
    const auto info = qemu_img.info(path, "raw");
    ASSERT_TRUE(info) << name << ": " << info.error().message;
    EXPECT_EQ(info.value().virtual_size_bytes, mib) << name;
    EXPECT_TRUE(std::filesystem::exists(path)) << name;
    const auto same = qemu_img.identical(path, "raw", path, "raw");
    EXPECT_TRUE(same && same.value()) << name;
  }
}

TEST_F(QemuImgTest, a_relative_name_is_a_file_too) {
  const std::filesystem::path here = std::filesystem::current_path();
  std::filesystem::current_path(directory.path());
  const auto made = qemu_img.create("nbd:x", "raw", mib);
  const auto info = qemu_img.info("nbd:x", "raw");
  std::filesystem::current_path(here);
  ASSERT_TRUE(made) << made.error().message;
  ASSERT_TRUE(info) << info.error().message;
  EXPECT_TRUE(std::filesystem::exists(directory / "nbd:x"));
}

TEST_F(QemuImgTest, a_raw_image_with_a_qcow2_header_stays_raw) {
  // What a hostile guest would write to the start of its disk.
  const std::string path = directory / "trap.img";
  write_text(directory / "secret", "secret");
  tool({"qemu-img", "create", "-q", "-f", "qcow2", "-b", directory / "secret", "-F", "raw", path,
        "1M"});
  EXPECT_EQ(qemu_img.info(path, "").value().backing_file, directory / "secret")
      << "probing falls for it";
  const auto info = qemu_img.info(path, "raw");
  ASSERT_TRUE(info);
  EXPECT_EQ(info.value().format, "raw");
  EXPECT_EQ(info.value().backing_file, "");
}

TEST_F(QemuImgTest, errors_name_the_file_and_the_reason) {
  const auto missing = qemu_img.info(directory / "none.img", "raw");
  ASSERT_FALSE(missing);
  EXPECT_EQ(missing.error().code, ENOENT);
  EXPECT_THAT(missing.error().message, HasSubstr("cannot read image " + (directory / "none.img")));
  EXPECT_THAT(missing.error().message, HasSubstr("No such file or directory"));

  write_text(directory / "junk.qcow2", "this is no image");
  const auto junk = qemu_img.info(directory / "junk.qcow2", "qcow2");
  ASSERT_FALSE(junk);
  EXPECT_THAT(junk.error().message, HasSubstr("not in qcow2 format"));
  EXPECT_THAT(junk.error().message, HasSubstr(directory / "junk.qcow2"));

  const auto no_program = QemuImg("havm-no-qemu-img").info(directory / "x", "raw");
  ASSERT_FALSE(no_program);
  EXPECT_THAT(no_program.error().message, HasSubstr("install qemu-utils"));
}

TEST_F(QemuImgTest, an_image_in_use_is_busy_unless_shared_is_asked_for) {
  const std::string path = image("used.qcow2", "qcow2");
  const std::string pid_file = directory / "pid";
  const std::string socket = directory / "s";
  tool({"qemu-storage-daemon", "--daemonize", "--pidfile", pid_file, "--blockdev",
        "driver=qcow2,node-name=d,file.driver=file,file.filename=" + path, "--nbd-server",
        "addr.type=unix,addr.path=" + socket, "--export", "type=nbd,id=e,node-name=d,writable=on"});
  const pid_t pid = static_cast<pid_t>(std::stol(read_text(pid_file)));
  const auto exclusive = qemu_img.info(path, "qcow2");
  const auto shared = qemu_img.info(path, "qcow2", ImageAccess::shared);
  const auto limit = qemu_img.growth_limit_bytes(path, "qcow2", ImageAccess::shared);
  ::kill(pid, SIGTERM);
  ASSERT_FALSE(exclusive);
  EXPECT_EQ(exclusive.error().code, EBUSY) << exclusive.error().message;
  EXPECT_THAT(exclusive.error().message, HasSubstr("it is in use"));
  EXPECT_TRUE(shared) << shared.error().message;
  EXPECT_TRUE(limit) << limit.error().message;
}

TEST_F(QemuImgTest, measure_follows_the_layout_of_the_image) {
  const std::string path = directory / "m.qcow2";
  tool({"qemu-img", "create", "-q", "-f", "qcow2", "-o", "cluster_size=4k,refcount_bits=64", path,
        "64M"});
  const auto measured = qemu_img.measure(path, "qcow2");
  ASSERT_TRUE(measured) << measured.error().message;
  // The file must fit when it is really filled, and a default layout would have been too small for
  // it.
  tool({"qemu-io", "-f", "qcow2", "-c", "write 0 64M", path});
  const std::uint64_t filled = std::filesystem::file_size(path);
  EXPECT_GT(filled, 64 * mib + 256 * 1024);
  EXPECT_LE(filled, measured.value().fully_allocated_bytes);
  EXPECT_LT(measured.value().required_bytes, mib);

  const auto raw = qemu_img.measure(image("r.img", "raw", 3 * mib), "raw");
  ASSERT_TRUE(raw);
  EXPECT_EQ(raw.value().fully_allocated_bytes, 3 * mib);
}

TEST_F(QemuImgTest, growth_limit_holds_while_the_image_is_filled_twice_around_a_snapshot) {
  const std::string path = image("g.qcow2", "qcow2", 32 * mib);
  tool({"qemu-io", "-f", "qcow2", "-c", "write -P 1 0 32M", path});
  tool({"qemu-img", "snapshot", "-c", "s", path});
  const auto limit = qemu_img.growth_limit_bytes(path, "qcow2");
  ASSERT_TRUE(limit) << limit.error().message;
  EXPECT_EQ(limit.value() % mib, 0U);
  tool({"qemu-io", "-f", "qcow2", "-c", "write -P 2 0 32M", path});
  EXPECT_GT(std::filesystem::file_size(path), 64 * mib);
  EXPECT_LE(std::filesystem::file_size(path), limit.value());

  EXPECT_EQ(qemu_img.growth_limit_bytes(image("r.img", "raw", 5 * mib), "raw").value(), 5 * mib);
}

TEST_F(QemuImgTest, a_qcow2_at_the_start_of_a_longer_file_is_still_the_same_image) {
  // What the engine does: the container is grown (sparse) to its limit before it is served.
  const std::string path = image("c.qcow2", "qcow2", 8 * mib);
  tool({"qemu-io", "-f", "qcow2", "-c", "write -P 7 1M 1M", path});
  const std::string copy = directory / "copy.qcow2";
  std::filesystem::copy_file(path, copy);
  std::filesystem::resize_file(path, qemu_img.growth_limit_bytes(path, "qcow2").value());
  EXPECT_TRUE(qemu_img.identical(path, "qcow2", copy, "qcow2").value());
  const auto check = qemu_img.check(path, "qcow2");
  ASSERT_TRUE(check) << check.error().message;
  EXPECT_TRUE(check.value().clean());
}

TEST_F(QemuImgTest, convert_keeps_the_contents_and_overwrites_nothing) {
  const std::string from = image("from.img", "raw", 4 * mib);
  tool({"qemu-io", "-f", "raw", "-c", "write -P 9 1M 64k", from});
  const std::string to = directory / "to it.qcow2";
  const auto done = qemu_img.convert(from, "raw", to, "qcow2");
  ASSERT_TRUE(done) << done.error().message;
  EXPECT_EQ(qemu_img.info(to, "qcow2").value().virtual_size_bytes, 4 * mib);
  EXPECT_TRUE(qemu_img.identical(from, "raw", to, "qcow2").value());
  EXPECT_LT(std::filesystem::file_size(to), mib) << "sparse";

  const std::string before = read_text(to);
  const auto again = qemu_img.convert(from, "raw", to, "raw");
  ASSERT_FALSE(again);
  EXPECT_EQ(again.error().code, EEXIST);
  EXPECT_THAT(again.error().message, HasSubstr(to + " exists already"));
  EXPECT_EQ(read_text(to), before);

  const auto missing = qemu_img.convert(directory / "none", "raw", directory / "new", "raw");
  ASSERT_FALSE(missing);
  EXPECT_EQ(missing.error().code, ENOENT);
}

TEST_F(QemuImgTest, compare_sees_one_byte) {
  const std::string a = image("a.img", "raw", 2 * mib);
  const std::string b = image("b.img", "raw", 2 * mib);
  EXPECT_TRUE(qemu_img.identical(a, "raw", b, "raw").value());
  tool({"qemu-io", "-f", "raw", "-c", "write -P 1 1048576 512", b});
  EXPECT_FALSE(qemu_img.identical(a, "raw", b, "raw").value());
  EXPECT_FALSE(qemu_img.identical(a, "raw", directory / "none", "raw"));
}

TEST_F(QemuImgTest, create_overwrites_nothing) {
  const std::string path = image("x.img", "raw");
  EXPECT_EQ(qemu_img.create(path, "raw", mib).error().code, EEXIST);
  std::filesystem::create_symlink("nowhere", directory / "link");
  EXPECT_EQ(qemu_img.create(directory / "link", "raw", mib).error().code, EEXIST);
}

TEST_F(QemuImgTest, check_finds_damage_and_leaks) {
  const std::string path = image("k.qcow2", "qcow2", 8 * mib);
  tool({"qemu-io", "-f", "qcow2", "-c", "write 0 1M", path});
  const auto clean = qemu_img.check(path, "qcow2");
  ASSERT_TRUE(clean) << clean.error().message;
  EXPECT_TRUE(clean.value().clean());
  EXPECT_EQ(clean.value().leaks, 0U);
  EXPECT_GT(clean.value().image_end_offset_bytes, mib);

  // Offset 0x18 is the size; 0x28 the place of the L1 table, here moved to an unaligned one.
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(0x20000 + 16);  // an entry of the first refcount block
  file.write("\0\0\0\0\0\0\0\0", 8);
  file.close();
  const auto damaged = qemu_img.check(path, "qcow2");
  ASSERT_TRUE(damaged) << damaged.error().message;
  EXPECT_FALSE(damaged.value().clean());

  EXPECT_EQ(qemu_img.check(image("r.img", "raw"), "raw").error().code, ENOTSUP);
}

}  // namespace
}  // namespace havm
