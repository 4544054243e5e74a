// The job of disk-probe: to do with one disk image or record what an engine does, with the engine's
// own FileDisk and RecordStore, so that the tests of lossyfs judge the very calls that matter
// (io_uring, O_DIRECT, RWF_DSYNC, fdatasync, punched holes, image locks).
//
//   disk-probe IMAGE COMMAND…    write OFFSET LENGTH BYTE | fua OFFSET LENGTH BYTE | flush |
//                                zero OFFSET LENGTH | punch OFFSET LENGTH | extents |
//                                hold (until standard input ends)
//   disk-probe --record PATH     creates a record there, and loads it again
// Prints what it finds; exit status 1 with the error on standard error. It ends without a flush of
// its own.
#include <cstring>
#include <functional>
#include <iostream>
#include <optional>
#include <string>
#include <vector>

#include <boost/asio/io_context.hpp>

#include "tests/unit/vmrepl/disk/record_sample.hpp"
#include "vmrepl/base/buffer.hpp"
#include "vmrepl/disk/file_disk.hpp"
#include "vmrepl/disk/record_store.hpp"
#include "vmrepl/disk/uring_loop.hpp"

namespace {

using namespace havm;

class Probe {
 public:
  int open(const std::string& path) {
    auto loop = UringLoop::create(io_.get_executor());
    if (!loop) return fail(loop.error().message);
    auto disk = FileDisk::open(std::move(loop).value(), path, {});
    if (!disk) return fail(disk.error().message);
    disk_ = std::move(disk).value();
    std::cout << "direct " << disk_->direct() << std::endl;
    return 0;
  }

  int command(const std::vector<std::string>& words, std::size_t& at) {
    const std::string& verb = words[at++];
    const auto number = [&] { return std::stoull(words.at(at++)); };
    if (verb == "flush") return wait([&](auto done) { disk_->flush(std::move(done)); });
    if (verb == "extents") return print_extents();
    if (verb == "hold") return hold();
    const std::uint64_t offset = number();
    const std::uint64_t length = number();
    if (verb == "zero" || verb == "punch")
      return wait(
          [&](auto done) { disk_->zero(offset, length, verb == "punch", std::move(done)); });
    if (verb != "write" && verb != "fua") return fail("there is no command '" + verb + "'");
    Buffer bytes(length);
    std::memset(bytes.data(), static_cast<int>(number()), length);
    return wait(
        [&](auto done) { disk_->write(offset, bytes.span(), verb == "fua", std::move(done)); });
  }

  static int fail(const std::string& text) {
    std::cerr << "error: " << text << std::endl;
    return 1;
  }

 private:
  int wait(const std::function<void(ReplicaDisk::Done)>& start) {
    std::optional<int> result;
    start([&result](int error) { result = error; });
    io_.restart();
    while (!result && io_.run_one() > 0) {
    }
    return result == 0 ? 0 : fail(std::strerror(result.value_or(EIO)));
  }

  static int hold() {
    std::cout << "holding" << std::endl;
    std::string rest;
    while (std::getline(std::cin, rest)) {
    }
    return 0;
  }

  int print_extents() {
    const auto extents = disk_->extents(0, disk_->size_bytes());
    if (!extents) return fail(extents.error().message);
    for (const Extent& extent : extents.value())
      std::cout << (extent.hole ? "hole " : "data ") << extent.offset << ' ' << extent.length
                << std::endl;
    return 0;
  }

  boost::asio::io_context io_;
  std::unique_ptr<FileDisk> disk_;
};

int probe_record(const std::string& path) {
  const Record record = sample_record(1);
  {
    const auto made = RecordStore::create(path, record);
    if (!made) return Probe::fail(made.error().message);
    if (RecordStore::load(path)) return Probe::fail("a second engine could load the record");
  }
  const auto loaded = RecordStore::load(path);
  if (!loaded) return Probe::fail(loaded.error().message);
  return loaded.value().record() == record ? 0 : Probe::fail("another record was loaded");
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> words(argv + 1, argv + argc);
  if (words.size() < 2) return Probe::fail("disk-probe IMAGE COMMAND… or --record PATH");
  if (words[0] == "--record") return probe_record(words[1]);
  Probe probe;
  int status = probe.open(words[0]);
  for (std::size_t at = 1; status == 0 && at < words.size();)
    status = probe.command(words, at);
  return status;
}
