// A real engine and a partner that says what no engine would: it may end the session, never the
// engine.
#include <optional>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include "tests/unit/vmrepl/session/engine_pair.hpp"
#include "vmrepl/base/unique_fd.hpp"
#include "vmrepl/wire/frame_codec.hpp"
#include "vmrepl/wire/repl_messages.hpp"

namespace havm {
namespace {

using testing::HasSubstr;

sockaddr_in loopback(std::uint16_t port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

const sockaddr* generic(const sockaddr_in& address) {
  return static_cast<const sockaddr*>(static_cast<const void*>(&address));
}

// One frame; nothing when the other side closes or is silent for too long.
std::optional<FrameHeader> receive_frame(int fd, std::string& payload) {
  const auto read_all = [fd](void* into, std::size_t size) {
    auto* at = static_cast<char*>(into);
    while (size > 0) {
      pollfd readable{fd, POLLIN, 0};
      if (::poll(&readable, 1, 10000) != 1) return false;
      const ssize_t n = ::recv(fd, at, size, 0);
      if (n <= 0) return false;
      at += n;
      size -= static_cast<std::size_t>(n);
    }
    return true;
  };
  FrameHeaderBytes bytes{};
  if (!read_all(bytes.data(), bytes.size())) return std::nullopt;
  const auto decoded = decode_header(bytes);
  if (!std::holds_alternative<FrameHeader>(decoded)) return std::nullopt;
  const FrameHeader header = std::get<FrameHeader>(decoded);
  payload.resize(header.payload_length);
  if (!read_all(payload.data(), payload.size())) return std::nullopt;
  return header;
}

void send_frame(int fd, FrameHeader header, const std::string& payload) {
  const FrameHeaderBytes bytes = encode_header(header, bytes_of(payload));
  std::string all(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  all += payload;
  ASSERT_EQ(::send(fd, all.data(), all.size(), MSG_NOSIGNAL), static_cast<ssize_t>(all.size()));
}

// What comes near the largest payload a frame may bring; six characters of JSON for each of these.
std::string long_text() {
  return std::string(json_payload_bytes_max / 6 - 200, '\x01');
}

class EngineHostilePartnerTest : public EnginePair {};

TEST_F(EngineHostilePartnerTest, AHelloOfAnyLengthIsRefused) {
  ASSERT_EQ(b.create("inconsistent"), 0) << b.log();
  b.start();
  UniqueFd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const sockaddr_in address = loopback(plan.port_b);
  ASSERT_EQ(::connect(fd.get(), generic(address), sizeof address), 0);
  Hello hello;
  hello.vm = long_text();
  hello.vm_id = hello.node = hello.boot_id = hello.engine_version = "x";
  hello.epoch = Epoch(1);
  hello.disks = {{"vda", pair_disk_bytes}};
  FrameHeader header;
  header.type = FrameType::hello;
  header.session = SessionId(7);
  header.sequence = Sequence(1);
  send_frame(fd.get(), header, encode(hello));
  std::string payload;
  const auto answer = receive_frame(fd.get(), payload);
  ASSERT_TRUE(answer) << b.log();
  EXPECT_EQ(answer->type, FrameType::hello_refused);
  const auto refused = decode_hello_refused(payload);
  ASSERT_TRUE(refused);
  EXPECT_THAT(refused.value().reason, HasSubstr("this engine serves VM web1"));
  EXPECT_EQ(b.status()["record"]["state"], "inconsistent");
}

TEST_F(EngineHostilePartnerTest, ReasonsOfAnyLengthEndTheSessionOnly) {
  UniqueFd listener(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const int on = 1;
  ASSERT_EQ(::setsockopt(listener.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on), 0);
  const sockaddr_in address = loopback(plan.port_b);
  ASSERT_EQ(::bind(listener.get(), generic(address), sizeof address), 0);
  ASSERT_EQ(::listen(listener.get(), 4), 0);
  ASSERT_EQ(a.create("uptodate"), 0) << a.log();
  a.start();
  serve(a, 1);
  a.ok("connect");
  // Written by hand: encode() would not let it out.
  const std::string said =
      R"({"reason":")" + std::string(json_payload_bytes_max - 50, 'x') + R"(","promised_epoch":0})";
  const std::vector<std::pair<FrameType, std::string>> answers{{FrameType::hello_refused, said},
                                                               {FrameType::bye, said}};
  for (const auto& [type, answer] : answers) {
    pollfd waiting{listener.get(), POLLIN, 0};
    ASSERT_EQ(::poll(&waiting, 1, 10000), 1) << "the engine does not try again: " << a.log();
    UniqueFd fd(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
    std::string payload;
    const auto hello = receive_frame(fd.get(), payload);
    ASSERT_TRUE(hello && hello->type == FrameType::hello) << a.log();
    FrameHeader header;
    header.type = type;
    header.session = hello->session;
    header.sequence = Sequence(1);
    send_frame(fd.get(), header, answer);
    const auto farewell = receive_frame(fd.get(), payload);
    ASSERT_TRUE(farewell) << a.log();
    EXPECT_EQ(farewell->type, FrameType::bye);
  }
  EXPECT_EQ(a.status()["role"], "owner");
}

}  // namespace
}  // namespace havm
