#include "vmrepl/transport/tls_stream.hpp"

#include <algorithm>
#include <cstring>

#include <openssl/err.h>

#include "vmrepl/base/assert.hpp"
#include "vmrepl/transport/node_identity.hpp"
#include "vmrepl/transport/tcp_stream.hpp"

namespace havm {

struct TlsStream::Buffers {
  std::vector<std::byte> in = std::vector<std::byte>(in_bytes);
  std::size_t in_begin = 0;
  std::size_t in_end = 0;
  bool in_ended = false;  // nothing comes after what is in `in`
  std::vector<std::byte> out;
  std::size_t out_begin = 0;

  static Buffers& of(BIO* bio) { return *static_cast<Buffers*>(BIO_get_data(bio)); }

  static int read(BIO* bio, char* into, std::size_t size, std::size_t* got) {
    Buffers& b = of(bio);
    BIO_clear_retry_flags(bio);
    *got = std::min(size, b.in_end - b.in_begin);
    if (*got == 0) {
      if (!b.in_ended) BIO_set_retry_read(bio);
      return 0;
    }
    std::memcpy(into, b.in.data() + b.in_begin, *got);
    b.in_begin += *got;
    return 1;
  }

  static int write(BIO* bio, const char* from, std::size_t size, std::size_t* taken) {
    Buffers& b = of(bio);
    BIO_clear_retry_flags(bio);
    // Only a partner that asks for new keys without end comes here (guarantee 4).
    if (b.out.size() + size > out_bytes_max) return 0;
    const auto* bytes = reinterpret_cast<const std::byte*>(from);
    b.out.insert(b.out.end(), bytes, bytes + size);
    *taken = size;
    return 1;
  }

  static long control(BIO* bio, int command, long, void*) {
    const Buffers& b = of(bio);
    if (command == BIO_CTRL_EOF) return b.in_ended && b.in_begin == b.in_end ? 1 : 0;
    return command == BIO_CTRL_FLUSH ? 1 : 0;
  }

  static BIO* make_bio(Buffers& buffers) {
    static BIO_METHOD* const method = [] {
      BIO_METHOD* m = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "havm buffers");
      BIO_meth_set_read_ex(m, read);
      BIO_meth_set_write_ex(m, write);
      BIO_meth_set_ctrl(m, control);
      return m;
    }();
    BIO* bio = BIO_new(method);
    HAVM_ASSERT(bio != nullptr, "out of memory");
    BIO_set_data(bio, &buffers);
    BIO_set_init(bio, 1);
    return bio;
  }
};

namespace {

// What the other side says of this node.
std::string alert_text(int alert) {
  switch (alert) {
    case SSL_AD_UNKNOWN_CA:
      return "it does not know the CA of this node's certificate; were both nodes joined to one "
             "cluster (havm node-join)?";
    case SSL_AD_BAD_CERTIFICATE:
      return "it does not accept this node's certificate; does it expect another node?";
    case SSL_AD_CERTIFICATE_EXPIRED:
      return "it finds this node's certificate expired, or not valid yet by its clock";
    case TLS13_AD_CERTIFICATE_REQUIRED:
      return "it got no certificate of this node";
    case SSL_AD_PROTOCOL_VERSION:
      return "it does not speak this version of TLS";
    default:
      return std::string("alert '") + SSL_alert_desc_string_long(alert) + "'";
  }
}

std::string error_text(unsigned long error) {
  const int reason = ERR_GET_REASON(error);
  if (ERR_GET_LIB(error) == ERR_LIB_SSL) {
    if (reason >= SSL_AD_REASON_OFFSET)
      return "the other side refuses this node: " + alert_text(reason - SSL_AD_REASON_OFFSET);
    switch (reason) {
      case SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE:
        return "the other side shows no certificate";
      case SSL_R_UNSUPPORTED_PROTOCOL:
        return "the other side does not speak TLS 1.3";
      case SSL_R_WRONG_VERSION_NUMBER:
      case SSL_R_HTTP_REQUEST:
        return "what came is not TLS; is the other side set to plain TCP?";
      default:
        break;
    }
  }
  const char* words = ERR_reason_error_string(error);
  return words == nullptr ? "no reason was given" : words;
}

}  // namespace

// ---- life ------------------------------------------------------------------------------------

TlsStream::TlsStream(Socket socket, std::string partner, std::uint64_t records_per_key)
    : socket_(std::move(socket)),
      partner_(std::move(partner)),
      records_per_key_(records_per_key),
      buffers_(std::make_unique<Buffers>()) {
  record_.reserve(record_bytes);
}

TlsStream::~TlsStream() = default;

Result<std::unique_ptr<TlsStream>> TlsStream::create(Socket socket, SSL_CTX& context, TlsRole role,
                                                     std::string partner,
                                                     std::uint64_t records_per_key) {
  std::unique_ptr<TlsStream> stream(
      new TlsStream(std::move(socket), std::move(partner), records_per_key));
  SSL_CTX_set_cert_verify_callback(&context, verify, nullptr);
  stream->ssl_.reset(SSL_new(&context));
  if (!stream->ssl_) return Error("a TLS connection cannot be set up: " + openssl_error());
  SSL* ssl = stream->ssl_.get();
  BIO* bio = Buffers::make_bio(*stream->buffers_);
  SSL_set_bio(ssl, bio, bio);
  SSL_set_app_data(ssl, stream.get());
  if (role == TlsRole::client)
    SSL_set_connect_state(ssl);
  else
    SSL_set_accept_state(ssl);
  return stream;
}

// Guarantee 1: the chain, then the name. Runs inside the handshake, so that the other side gets an
// alert that says why.
int TlsStream::verify(X509_STORE_CTX* check, void*) {
  const auto* ssl = static_cast<const SSL*>(
      X509_STORE_CTX_get_ex_data(check, SSL_get_ex_data_X509_STORE_CTX_idx()));
  auto* self = static_cast<TlsStream*>(SSL_get_app_data(ssl));
  X509* certificate = X509_STORE_CTX_get0_cert(check);
  const std::string node = node_of(*certificate);
  const std::string whose =
      node.empty() ? "the certificate of the other side" : "the certificate of node " + node;
  if (X509_verify_cert(check) != 1) {
    self->refusal_ = whose + " is refused: " + certificate_problem(X509_STORE_CTX_get_error(check));
    return 0;
  }
  if (node == self->partner_) return 1;
  X509_STORE_CTX_set_error(check, X509_V_ERR_HOSTNAME_MISMATCH);
  self->refusal_ = whose + " is refused: that of node " + self->partner_ + " is expected";
  return 0;
}

StreamStep TlsStream::handshake() {
  if (end_) return *end_;
  for (;;) {
    ERR_clear_error();
    const int result = SSL_do_handshake(ssl_.get());
    if (result != 1 && SSL_get_error(ssl_.get(), result) != SSL_ERROR_WANT_READ) {
      StreamStep why = fail(result);
      (void)flush();  // the alert
      return why;
    }
    StreamStep sent = flush();
    if (sent.kind != StreamStep::Kind::moved) return sent;
    if (result == 1) break;
    StreamStep got = fill();
    if (got.kind == StreamStep::Kind::blocked || got.kind == StreamStep::Kind::failed) return got;
  }
  ready_ = true;
  return StreamStep::moved(0);
}

// ---- sending ---------------------------------------------------------------------------------

bool TlsStream::has_unsent() const {
  return buffers_->out_begin < buffers_->out.size();
}

// `moved` when nothing is left.
StreamStep TlsStream::flush() {
  Buffers& b = *buffers_;
  while (has_unsent()) {
    const iovec rest{b.out.data() + b.out_begin, b.out.size() - b.out_begin};
    StreamStep step = send_now(socket_.native_handle(), {&rest, 1});
    if (step.kind != StreamStep::Kind::moved) return step;
    b.out_begin += step.bytes;
  }
  b.out.clear();
  b.out_begin = 0;
  return StreamStep::moved(0);
}

bool TlsStream::change_keys_if_due(std::size_t records) {
  records_ += records;
  if (records_ < records_per_key_) return true;
  records_ = 0;
  return SSL_key_update(ssl_.get(), SSL_KEY_UPDATE_NOT_REQUESTED) == 1;
}

bool TlsStream::encrypt(const std::byte* data, std::size_t size) {
  if (size == 0) return true;
  std::size_t written = 0;
  const int result = SSL_write_ex(ssl_.get(), data, size, &written);
  if (result == 1) {
    HAVM_ASSERT(written == size, "OpenSSL writes all or nothing here");
    return change_keys_if_due((size + record_bytes - 1) / record_bytes);
  }
  end_ = fail(result);
  return false;
}

StreamStep TlsStream::write(std::span<const iovec> parts) {
  if (end_ && end_->kind == StreamStep::Kind::failed) return *end_;
  HAVM_ASSERT(ready_ && (parts.empty() || !said_goodbye_),
              "nothing is written before the handshake or behind the end");
  StreamStep earlier = flush();
  if (earlier.kind != StreamStep::Kind::moved) return earlier;
  ERR_clear_error();
  std::size_t left = write_bytes_max;
  record_.clear();
  for (const iovec& part : parts) {
    const auto* at = static_cast<const std::byte*>(part.iov_base);
    std::size_t size = std::min(part.iov_len, left);
    left -= size;
    while (size > 0) {
      // Whole records are encrypted where they lie; the rest is gathered.
      const std::size_t whole = size - size % record_bytes;
      if (record_.empty() && whole > 0) {
        if (!encrypt(at, whole)) return *end_;
        at += whole;
        size -= whole;
        continue;
      }
      const std::size_t piece = std::min(size, record_bytes - record_.size());
      record_.insert(record_.end(), at, at + piece);
      at += piece;
      size -= piece;
      if (record_.size() < record_bytes) continue;
      if (!encrypt(record_.data(), record_.size())) return *end_;
      record_.clear();
    }
  }
  if (!encrypt(record_.data(), record_.size())) return *end_;
  StreamStep sent = flush();
  if (sent.kind == StreamStep::Kind::failed) return sent;
  return StreamStep::moved(write_bytes_max - left);
}

// ---- receiving -------------------------------------------------------------------------------

bool TlsStream::has_unread() const {
  return end_ || buffers_->in_begin < buffers_->in_end || SSL_pending(ssl_.get()) > 0;
}

// Takes from the socket; `ended` leaves the rest to OpenSSL, which knows whether it was announced.
StreamStep TlsStream::fill() {
  Buffers& b = *buffers_;
  HAVM_ASSERT(b.in_begin == b.in_end, "OpenSSL has taken all of it");
  const iovec room{b.in.data(), b.in.size()};
  StreamStep step = receive_now(socket_.native_handle(), {&room, 1});
  b.in_begin = b.in_end = 0;
  if (step.kind == StreamStep::Kind::moved) b.in_end = step.bytes;
  if (step.kind == StreamStep::Kind::ended) b.in_ended = true;
  return step;
}

StreamStep TlsStream::read(std::span<const iovec> parts) {
  if (end_) return *end_;
  HAVM_ASSERT(ready_, "read before the handshake");
  std::size_t total = 0;
  std::size_t part = 0;
  std::size_t at = 0;  // in this part
  while (part < parts.size() && total < read_bytes_max && !end_) {
    if (at == parts[part].iov_len) {
      ++part;
      at = 0;
      continue;
    }
    ERR_clear_error();
    std::size_t got = 0;
    auto* into = static_cast<std::byte*>(parts[part].iov_base) + at;
    const int result = SSL_read_ex(ssl_.get(), into, parts[part].iov_len - at, &got);
    if (result == 1) {
      at += got;
      total += got;
      continue;
    }
    if (SSL_get_error(ssl_.get(), result) != SSL_ERROR_WANT_READ) {
      end_ = fail(result);
      break;
    }
    const StreamStep filled = fill();
    if (filled.kind == StreamStep::Kind::blocked) break;
    if (filled.kind == StreamStep::Kind::failed) end_ = filled;
  }
  if (total > 0) return StreamStep::moved(total);
  return end_ ? *end_ : StreamStep::blocked();
}

// ---- the end ---------------------------------------------------------------------------------

// Why OpenSSL would not go on.
StreamStep TlsStream::fail(int result) {
  const int kind = SSL_get_error(ssl_.get(), result);
  const unsigned long error = ERR_get_error();
  ERR_clear_error();
  if (kind == SSL_ERROR_ZERO_RETURN)
    return StreamStep::ended("the other side closed the connection");
  if (!refusal_.empty()) return StreamStep::failed(refusal_);
  if (ERR_GET_LIB(error) == ERR_LIB_SSL &&
      ERR_GET_REASON(error) == SSL_R_UNEXPECTED_EOF_WHILE_READING)
    return StreamStep::failed(
        ready_ ? "the connection was cut off: it ended without the end that TLS announces"
               : "the other side closed the connection; is it set to plain TCP?");
  return StreamStep::failed(error_text(error));
}

// The other side shall know that this is no cut. Only as far as the socket takes it.
void TlsStream::say_goodbye() {
  if (!ready_ || said_goodbye_) return;
  said_goodbye_ = true;
  if (end_ && end_->kind == StreamStep::Kind::failed) return;
  ERR_clear_error();
  (void)SSL_shutdown(ssl_.get());
  ERR_clear_error();
  (void)flush();
}

void TlsStream::end_sending() {
  say_goodbye();
  buffers_->out.clear();
  buffers_->out_begin = 0;
  boost::system::error_code ignored;
  socket_.shutdown(Socket::shutdown_send, ignored);
}

void TlsStream::close() {
  if (!socket_.is_open()) return;
  say_goodbye();
  boost::system::error_code ignored;
  socket_.close(ignored);
}

}  // namespace havm
