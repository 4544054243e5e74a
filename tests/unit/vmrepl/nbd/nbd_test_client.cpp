#include "tests/unit/vmrepl/nbd/nbd_test_client.hpp"

#include <cerrno>
#include <chrono>
#include <cstring>

#include <sys/socket.h>
#include <sys/un.h>

namespace havm::nbd_test {
namespace {

constexpr std::chrono::seconds patience{10};
constexpr std::chrono::milliseconds tick{2};
constexpr std::chrono::milliseconds silence{30};

UniqueFd connect_to(const std::string& path) {
  UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.data(), std::min(path.size(), sizeof address.sun_path - 1));
  const auto* generic = reinterpret_cast<const sockaddr*>(&address);
  if (::connect(fd.get(), generic, sizeof address) != 0) fd.reset();
  return fd;
}

}  // namespace

bool run_until(boost::asio::io_context& io, const std::function<bool()>& condition) {
  const auto deadline = std::chrono::steady_clock::now() + patience;
  while (!condition()) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    io.restart();
    io.run_one_for(tick);
  }
  return true;
}

NbdTestClient::NbdTestClient(boost::asio::io_context& io, const std::string& socket_path)
    : io_(io), fd_(connect_to(socket_path)) {}

bool NbdTestClient::send(std::span<const std::byte> bytes) {
  bool open = true;
  const bool all = run_until(io_, [&] {
    const ssize_t n = ::send(fd_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n > 0) bytes = bytes.subspan(static_cast<std::size_t>(n));
    open = n >= 0 || errno == EAGAIN;
    return bytes.empty() || !open;
  });
  return all && open;
}

Bytes NbdTestClient::receive(std::size_t count) {
  Bytes bytes(count);
  std::size_t have = 0;
  run_until(io_, [&] {
    const ssize_t n = ::recv(fd_.get(), bytes.data() + have, count - have, MSG_DONTWAIT);
    if (n > 0) have += static_cast<std::size_t>(n);
    const bool ended = n == 0 || (n < 0 && errno != EAGAIN);
    return have == count || ended;
  });
  bytes.resize(have);
  return bytes;
}

bool NbdTestClient::sees_end() {
  Bytes ignored(65536);
  return run_until(io_, [&] {
    const ssize_t n = ::recv(fd_.get(), ignored.data(), ignored.size(), MSG_DONTWAIT);
    return n == 0 || (n < 0 && errno != EAGAIN);
  });
}

bool NbdTestClient::sees_silence() {
  io_.restart();
  io_.run_for(silence);
  std::byte one{};
  return ::recv(fd_.get(), &one, 1, MSG_DONTWAIT | MSG_PEEK) < 0 && errno == EAGAIN;
}

bool NbdTestClient::go(bool structured, bool block_status) {
  constexpr std::size_t greeting_bytes = 18;
  constexpr std::size_t ack_bytes = 20;
  constexpr std::size_t info_bytes = (ack_bytes + 12) + (ack_bytes + 14) + ack_bytes;
  Bytes hello = client_flags();
  std::size_t expected = greeting_bytes;
  if (structured) {
    hello = hello + option(nbd_opt_structured_reply);
    expected += ack_bytes;
  }
  if (block_status) {
    hello = hello + option(nbd_opt_set_meta_context, context_data("", {"base:allocation"}));
    expected += (ack_bytes + 4 + nbd_base_allocation.size()) + ack_bytes;
  }
  hello = hello + option(nbd_opt_go, info_data(""));
  expected += info_bytes;
  if (!send(hello)) return false;
  const Bytes answer = receive(expected);
  const Bytes ack = option_reply(nbd_opt_go, nbd_rep_ack);
  return answer.size() == expected && std::equal(ack.rbegin(), ack.rend(), answer.rbegin());
}

NbdTestClient::SimpleReply NbdTestClient::simple_reply() {
  const Bytes bytes = receive(16);
  NbdReader reader(bytes);
  SimpleReply reply;
  reply.magic = reader.integer<std::uint32_t>();
  reply.error = reader.integer<std::uint32_t>();
  reply.cookie = reader.integer<std::uint64_t>();
  return reply;
}

NbdTestClient::Chunk NbdTestClient::chunk() {
  const Bytes bytes = receive(20);
  NbdReader reader(bytes);
  Chunk chunk;
  chunk.magic = reader.integer<std::uint32_t>();
  chunk.flags = reader.integer<std::uint16_t>();
  chunk.type = reader.integer<std::uint16_t>();
  chunk.cookie = reader.integer<std::uint64_t>();
  chunk.payload = receive(reader.integer<std::uint32_t>());
  return chunk;
}

}  // namespace havm::nbd_test
