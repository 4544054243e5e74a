#include "agent/guard/guard_client.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

namespace havm {
namespace {

constexpr std::size_t answer_bytes_max = 1024;
using Clock = std::chrono::steady_clock;

}  // namespace

GuardClient::GuardClient(std::string socket_path, std::chrono::milliseconds deadline)
    : path_(std::move(socket_path)), deadline_(deadline) {}

Result<void> GuardClient::connect() {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path_.size() >= sizeof address.sun_path)
    return Error("the socket path " + path_ + " is too long", ENAMETOOLONG);
  std::memcpy(address.sun_path, path_.data(), path_.size());
  UniqueFd fd(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!fd.valid()) return errno_error("cannot create a socket", errno);
  if (::connect(fd.get(), static_cast<const sockaddr*>(static_cast<const void*>(&address)),
                sizeof address) != 0)
    return errno_error("cannot reach havm-guard at " + path_ + " (is it running?)", errno);
  fd_ = std::move(fd);
  return success();
}

Result<std::string> GuardClient::receive(Clock::time_point until) {
  char answer[answer_bytes_max];
  while (true) {
    const ssize_t n = ::recv(fd_.get(), answer, sizeof answer, 0);
    if (n > 0) return std::string(answer, static_cast<std::size_t>(n));
    if (n == 0) return Error("havm-guard closed the connection", ECONNRESET);
    if (errno != EAGAIN && errno != EINTR) return errno_error("no answer of havm-guard", errno);
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(until - Clock::now());
    if (left.count() <= 0) return Error("havm-guard did not answer within the deadline", ETIMEDOUT);
    pollfd readable{fd_.get(), POLLIN, 0};
    (void)::poll(&readable, 1, static_cast<int>(std::min<long long>(left.count() + 1, 60'000)));
  }
}

Result<std::string> GuardClient::command(const std::string& text) {
  return command(text, deadline_);
}

Result<std::string> GuardClient::command(const std::string& text,
                                         std::chrono::milliseconds deadline) {
  if (text != "status") return exchange(text, deadline);
  // The packets that follow its answer must not be taken for those of the next commands.
  BOOST_OUTCOME_TRY(const auto lines, status());
  return std::to_string(lines.size());
}

Result<std::string> GuardClient::exchange(const std::string& text,
                                          std::chrono::milliseconds deadline) {
  // A kept connection may belong to a guard that was restarted: then the command is sent once more.
  const bool fresh = !fd_.valid();
  if (fresh) {
    BOOST_OUTCOME_TRY(connect());
  }
  if (::send(fd_.get(), text.data(), text.size(), MSG_NOSIGNAL) < 0) {
    const int error = errno;
    fd_.reset();
    if (fresh) return errno_error("cannot send to havm-guard", error);
    return exchange(text, deadline);
  }
  auto answer = receive(Clock::now() + deadline);
  if (!answer) {
    fd_.reset();  // a late answer must not be taken for that of the next command
    if (!fresh && answer.error().code == ECONNRESET) return exchange(text, deadline);
    return answer;
  }
  const std::string& reply = answer.value();
  if (reply == "ok") return std::string();
  if (reply.starts_with("ok ")) return reply.substr(3);
  return Error("havm-guard: " + (reply.starts_with("error ") ? reply.substr(6) : reply), EINVAL);
}

Result<std::vector<std::string>> GuardClient::status() {
  BOOST_OUTCOME_TRY(const std::string count, exchange("status", deadline_));
  std::vector<std::string> lines;
  const auto until = Clock::now() + deadline_;
  for (long left = std::strtol(count.c_str(), nullptr, 10); left > 0; --left) {
    auto line = receive(until);
    if (!line) {
      fd_.reset();
      return line.error();
    }
    lines.push_back(std::move(line.value()));
  }
  return lines;
}

}  // namespace havm
