#include "tests/unit/vmrepl/session/verified_guest.hpp"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <fstream>
#include <iterator>
#include <memory>
#include <utility>

#include <libnbd.h>

#include "tests/unit/vmrepl/nbd/nbd_judges.hpp"

namespace havm {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::seconds patience{20};
constexpr int poll_ms = 10;
// Of a hundred requests.
constexpr unsigned writes = 70;
constexpr unsigned zeroes = 10;
constexpr unsigned reads = 15;  // the rest are flushes

}  // namespace

struct VerifiedGuest::Request {
  RequestKind kind = RequestKind::write;
  VerifiedGuest* guest = nullptr;
  Client* client = nullptr;
  std::uint64_t block = 0;
  Value value = 0;
  std::vector<std::byte> data;
};

struct VerifiedGuest::Client {
  std::unique_ptr<nbd_handle, decltype(&nbd_close)> handle{nbd_create(), &nbd_close};
  std::size_t in_flight = 0;

  [[nodiscard]] bool connect(const std::string& socket) const {
    return nbd_connect_uri(handle.get(), nbd_uri(socket, "vda").c_str()) == 0;
  }
  [[nodiscard]] bool lost() const {
    return nbd_aio_is_dead(handle.get()) == 1 || nbd_aio_is_closed(handle.get()) == 1;
  }
};

VerifiedGuest::VerifiedGuest(std::uint64_t disk_bytes, std::uint64_t seed)
    : possible_(disk_bytes / block_bytes, {0}),
      busy_(disk_bytes / block_bytes, false),
      random_(seed) {}

VerifiedGuest::~VerifiedGuest() {
  stop();
}

// Value 0 and every eighth are zeroes: zeroing is a kind of writing.
void VerifiedGuest::fill(std::span<std::byte> block, std::uint64_t number, Value value) const {
  if (value % 8 == 0) {
    std::fill(block.begin(), block.end(), std::byte{0});
    return;
  }
  std::mt19937_64 words(value * 1'000'003 + number);
  for (std::size_t i = 0; i < block.size(); i += 8) {
    const std::uint64_t word = words();
    std::memcpy(block.data() + i, &word, 8);
  }
}

bool VerifiedGuest::settle(std::span<const std::byte> seen, std::uint64_t number) {
  std::vector<std::byte> expected(block_bytes);
  for (const Value value : possible_[number]) {
    fill(expected, number, value);
    if (!std::equal(seen.begin(), seen.end(), expected.begin())) continue;
    possible_[number] = {value};
    return true;
  }
  return false;
}

void VerifiedGuest::violation(const std::string& what) {
  violations_.push_back(what);
}

VerifiedGuest::RequestKind VerifiedGuest::next_kind() {
  const auto dice = static_cast<unsigned>(random_() % 100);
  if (dice < writes) return RequestKind::write;
  if (dice < writes + zeroes) return RequestKind::zero;
  return dice < writes + zeroes + reads ? RequestKind::read : RequestKind::flush;
}

void VerifiedGuest::issue(Client& client, RequestKind kind) {
  auto request = std::make_unique<Request>();
  request->guest = this;
  request->client = &client;
  request->kind = kind;
  request->block = random_() % possible_.size();
  const bool fua = random_() % 8 == 0;
  using Kind = RequestKind;
  if (request->kind != Kind::flush) {
    while (busy_[request->block])
      request->block = (request->block + 1) % possible_.size();
    busy_[request->block] = true;
  }
  if (request->kind == Kind::zero) {
    next_value_ = (next_value_ + 7) / 8 * 8;
    request->value = next_value_++;
  } else if (request->kind == Kind::write) {
    if (next_value_ % 8 == 0) ++next_value_;
    request->value = next_value_++;
  }
  request->data.resize(block_bytes);
  if (request->kind == Kind::write) fill(request->data, request->block, request->value);

  Request* const r = request.release();
  nbd_completion_callback done;
  done.user_data = r;
  done.callback = [](void* data, int* error) {
    auto* const me = static_cast<Request*>(data);
    me->guest->ended(*me, *error);
    return 1;
  };
  done.free = [](void* data) { delete static_cast<Request*>(data); };
  nbd_handle* const h = client.handle.get();
  const std::uint64_t offset = r->block * block_bytes;
  const std::uint32_t flags = fua ? LIBNBD_CMD_FLAG_FUA : 0;
  ++client.in_flight;
  const std::uint64_t block = r->block;
  const bool changes = r->kind == Kind::write || r->kind == Kind::zero;
  // From the sending on, the new value may stand there.
  const Value value = r->value;
  if (changes) possible_[block].insert(value);
  std::int64_t cookie = -1;
  switch (r->kind) {
    case Kind::write:
      cookie = nbd_aio_pwrite(h, r->data.data(), block_bytes, offset, done, flags);
      break;
    case Kind::zero:
      cookie = nbd_aio_zero(h, block_bytes, offset, done, flags);
      break;
    case Kind::read:
      cookie = nbd_aio_pread(h, r->data.data(), block_bytes, offset, done, 0);
      break;
    case Kind::flush:
      cookie = nbd_aio_flush(h, done, 0);
      break;
  }
  if (cookie >= 0) return;
  // It never left; the connection is lost.
  --client.in_flight;
  busy_[block] = false;
}

// Called by libnbd, also for what is lost with the connection.
void VerifiedGuest::ended(Request& request, int error) {
  --request.client->in_flight;
  using Kind = RequestKind;
  if (request.kind != Kind::flush) busy_[request.block] = false;
  if (error == ENOTCONN) return;  // nobody knows
  if (error != 0) {
    violation("the guest was told an error: " + std::string(std::strerror(error)));
    return;
  }
  if (request.kind == Kind::read && !settle(request.data, request.block))
    violation("a read of block " + std::to_string(request.block) + " gave what cannot be there");
  if (request.kind == Kind::write || request.kind == Kind::zero) {
    possible_[request.block] = {request.value};
    ++acknowledged_;
  }
}

void VerifiedGuest::start(const std::string& nbd_socket) {
  ASSERT_FALSE(thread_.joinable());
  stopping_ = false;
  running_ = true;
  thread_ = std::thread([this, nbd_socket] {
    run(nbd_socket);
    running_ = false;
  });
}

void VerifiedGuest::run(const std::string& nbd_socket) {
  Client client;
  answered_all_ = true;
  if (!client.connect(nbd_socket)) {
    violation("the guest cannot connect: " + std::string(nbd_get_error()));
    return;
  }
  Clock::time_point deadline = Clock::time_point::max();
  bool flushing = false;  // the last request of all
  while (!client.lost()) {
    if (stopping_ && deadline == Clock::time_point::max()) deadline = Clock::now() + patience;
    if (stopping_ && client.in_flight == 0) {
      if (std::exchange(flushing, true)) break;
      issue(client, RequestKind::flush);
    }
    if (Clock::now() > deadline) {
      answered_all_ = false;
      break;
    }
    while (!stopping_ && client.in_flight < in_flight_max && !client.lost())
      issue(client, next_kind());
    if (nbd_poll(client.handle.get(), poll_ms) < 0) break;
  }
  client.handle.reset();
  std::fill(busy_.begin(), busy_.end(), false);
}

bool VerifiedGuest::stop() {
  stopping_ = true;
  if (thread_.joinable()) thread_.join();
  return answered_all_;
}

void VerifiedGuest::wait_for_acknowledged(std::uint64_t n, std::chrono::milliseconds limit) const {
  const auto deadline = Clock::now() + limit;
  while (running_ && acknowledged_ < n && Clock::now() < deadline)
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
}

testing::AssertionResult VerifiedGuest::judge(std::span<const std::byte> image) {
  if (image.size() != possible_.size() * block_bytes)
    return testing::AssertionFailure() << "the image has " << image.size() << " bytes";
  for (std::uint64_t i = 0; i < possible_.size(); ++i)
    if (!settle(image.subspan(i * block_bytes, block_bytes), i))
      return testing::AssertionFailure()
             << "block " << i << " holds none of the " << possible_[i].size()
             << " values it may hold: a completed write is lost, or another one came late";
  if (!violations_.empty()) return testing::AssertionFailure() << violations_.front();
  return testing::AssertionSuccess();
}

testing::AssertionResult VerifiedGuest::judge_image(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  return judge(std::as_bytes(std::span<const char>(text)));
}

testing::AssertionResult VerifiedGuest::judge_socket(const std::string& nbd_socket) {
  const Client client;
  std::vector<std::byte> image(possible_.size() * block_bytes);
  constexpr std::size_t piece = 1U << 20;
  if (!client.connect(nbd_socket)) return testing::AssertionFailure() << nbd_get_error();
  for (std::size_t at = 0; at < image.size(); at += piece)
    if (nbd_pread(client.handle.get(), image.data() + at, std::min(piece, image.size() - at), at,
                  0) != 0)
      return testing::AssertionFailure() << nbd_get_error();
  return judge(image);
}

}  // namespace havm
