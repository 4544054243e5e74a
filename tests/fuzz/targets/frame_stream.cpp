// How FrameConnection takes frames out of a stream, on a real socket pair: headers, payloads, cuts
// at any byte, pauses.
//
// Input: a seed for the cuts, then frames to build (some of them damaged), or raw bytes.
#include <algorithm>
#include <memory>
#include <utility>

#include <boost/asio/io_context.hpp>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/fuzz/support/fuzz_target.hpp"
#include "vmrepl/base/assert.hpp"
#include "vmrepl/session/frame_connection.hpp"
#include "vmrepl/transport/tcp_stream.hpp"

namespace havm::fuzz {
namespace {

using Tcp = boost::asio::ip::tcp;

constexpr std::size_t stream_bytes_max = 64U << 10;  // fits into the socket's buffer

struct Frame {
  FrameHeader header;
  std::vector<std::byte> payload;
  bool operator==(const Frame&) const = default;
};

struct Course {
  std::vector<Frame> frames;
  bool ended = false;
};

bool admitted(const FrameHeader& header) {
  return header.type != FrameType::hello_refused;
}

// What the stream says, read in the plainest way.
Course expected(Bytes stream) {
  Course course;
  while (stream.size() >= frame_header_bytes) {
    const auto decoded = decode_header(stream);
    const auto* header = std::get_if<FrameHeader>(&decoded);
    if (header == nullptr || !admitted(*header)) {
      course.ended = true;
      return course;
    }
    stream = stream.subspan(frame_header_bytes);
    if (stream.size() < header->payload_length) return course;
    const Bytes payload = stream.first(header->payload_length);
    stream = stream.subspan(payload.size());
    if (!check_payload(*header, payload)) {
      course.ended = true;
      return course;
    }
    course.frames.push_back({*header, {payload.begin(), payload.end()}});
  }
  return course;
}

// One end is the connection under test, the other is written to.
class Pipe {
 public:
  Pipe(boost::asio::io_context& io, Course& course) : io_(io), course_(course) {
    int fds[2] = {-1, -1};
    HAVM_ASSERT(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0, "no socket pair");
    writer_ = fds[0];
    Tcp::socket socket(io);
    socket.assign(Tcp::v4(), fds[1]);
    connection_ = std::make_shared<FrameConnection>(
        std::make_unique<TcpStream>(std::move(socket)), std::chrono::milliseconds(1000));
    FrameConnection::Handlers h;
    h.admit = admitted;
    h.on_frame = [this](const FrameHeader& header, Buffer payload) {
      const auto bytes = std::as_const(payload).span();
      course_.frames.push_back({header, {bytes.begin(), bytes.end()}});
      if (course_.frames.size() % 3 == 0) connection_->pause_receiving(true);
    };
    h.on_closed = [this](const std::string& reason) {
      FUZZ_CHECK(!reason.empty(), "an end has a reason");
      FUZZ_CHECK(!course_.ended, "an end is told once");
      course_.ended = true;
    };
    connection_->start(std::move(h));
  }
  Pipe(const Pipe&) = delete;
  Pipe& operator=(const Pipe&) = delete;
  ~Pipe() {
    connection_->close();
    run();
    ::close(writer_);
  }

  void write(Bytes piece) {
    while (!piece.empty() && !course_.ended) {
      const ssize_t n = ::send(writer_, piece.data(), piece.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
      if (n <= 0) break;  // it closed
      piece = piece.subspan(static_cast<std::size_t>(n));
    }
    run();
    connection_->pause_receiving(false);
    run();
  }

 private:
  void run() {
    io_.restart();
    while (io_.poll() > 0)
      continue;
  }

  boost::asio::io_context& io_;
  Course& course_;
  int writer_ = -1;
  std::shared_ptr<FrameConnection> connection_;
};

Course received(Bytes stream, std::uint64_t cuts) {
  static boost::asio::io_context io(1);
  Course course;
  Pipe pipe(io, course);
  for (int pieces = 0; !stream.empty(); ++pieces) {
    cuts = cuts * 6364136223846793005U + 1442695040888963407U;
    // A few small pieces, then the rest: each costs system calls.
    const std::size_t wanted = pieces < 8 ? 1 + (cuts >> 48) % 200 : stream.size();
    const Bytes piece = stream.first(std::min(wanted, stream.size()));
    pipe.write(piece);
    stream = stream.subspan(piece.size());
  }
  pipe.write({});
  return course;
}

FrameType type_of(std::size_t index) {
  constexpr FrameType types[] = {FrameType::hello, FrameType::write,        FrameType::zero,
                                 FrameType::ack,   FrameType::bye,          FrameType::lease_grant,
                                 FrameType::flush, FrameType::hello_refused};
  return types[index % std::size(types)];
}

// A frame made of a few decisions; `damage` flips one bit of it.
void append_frame(Input& in, std::vector<std::byte>& stream) {
  FrameHeader header;
  const std::uint8_t kind = in.byte();
  header.type = type_of(kind % 8U);
  header.sequence = Sequence(in.number(2));
  header.offset = in.number(2) * 512;
  std::size_t length = 0;
  if (header.type == FrameType::write) length = 1 + in.number(2) % 8192;
  if (header.type == FrameType::hello || header.type == FrameType::bye ||
      header.type == FrameType::hello_refused)
    length = 1 + in.byte();
  const std::vector<std::byte> payload(length, static_cast<std::byte>(kind));
  header.length = header.type == FrameType::zero ? 4096 : static_cast<std::uint32_t>(length);
  const FrameHeaderBytes bytes = encode_header(header, payload);
  const std::size_t start = stream.size();
  stream.insert(stream.end(), bytes.begin(), bytes.end());
  stream.insert(stream.end(), payload.begin(), payload.end());
  if (kind < 0xe0) return;
  const std::size_t bit = in.number(2) % ((stream.size() - start) * 8);
  stream[start + bit / 8] ^= std::byte{1} << static_cast<int>(bit % 8);
}

}  // namespace

void one_input(Bytes input) {
  Input in(input);
  const bool raw = in.byte() == 0xff;
  const std::uint64_t cuts = in.number(3);
  std::vector<std::byte> stream;
  if (raw) {
    const Bytes rest = in.rest();
    stream.assign(rest.begin(), rest.end());
  }
  while (!in.empty() && stream.size() < stream_bytes_max)
    append_frame(in, stream);
  const Course course = received(stream, cuts);
  const Course should_be = expected(stream);
  FUZZ_CHECK(course.frames == should_be.frames, "the same frames, however the stream is cut");
  FUZZ_CHECK(course.ended == should_be.ended, "it ends where the stream is unusable, only there");
}

std::vector<std::string> seeds() {
  const std::string head = packed(0, 1) + packed(99, 3);
  const std::string hello = packed(0, 1) + packed(1, 2) + packed(0, 2) + packed(200, 1);
  const std::string write = packed(1, 1) + packed(2, 2) + packed(8, 2) + packed(5000, 2);
  const std::string zero = packed(2, 1) + packed(3, 2) + packed(9, 2);
  const std::string ack = packed(3, 1) + packed(4, 2) + packed(0, 2);
  const std::string damaged = packed(0xe1, 1) + packed(2, 2) + packed(8, 2) + packed(100, 2);
  FrameHeader flush;
  flush.type = FrameType::flush;
  return {head + hello + write + zero + ack + write + write + ack + ack,
          head + write + write + damaged + packed(3, 2) + ack,
          head + hello + damaged + packed(900, 2) + zero,
          head + write + packed(7, 1) + packed(0, 5) + ack,
          packed(0xff, 1) + packed(5, 3) + string_of(encode_header(flush)) + "not a frame"};
}

}  // namespace havm::fuzz
