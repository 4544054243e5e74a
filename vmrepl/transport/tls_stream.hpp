// The job of TlsStream: a ByteStream inside TLS 1.3 over one TCP connection. OpenSSL reads and
// writes two buffers of this object; one system call moves many records.
//
// Guarantees
//  1. handshake() succeeds only when the other side has proved to be the node `partner` with a
//     certificate of the cluster CA. A client knows only after its first read whether the server
//     accepted *its* certificate; until then it has told nothing but its first frames.
//  2. Keys are changed after records_per_key records, long before the limits of AES-GCM.
//  3. A connection that is cut off is told from one that was ended (close_notify).
//  4. At most one write()'s worth of ciphertext waits to be sent (out_bytes_max).
// One thread.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "vmrepl/base/result.hpp"
#include "vmrepl/transport/byte_stream.hpp"
#include "vmrepl/transport/openssl_handles.hpp"

namespace havm {

enum class TlsRole { client, server };

class TlsStream final : public ByteStream {
 public:
  static constexpr std::size_t record_bytes = 16U << 10;
  static constexpr std::size_t in_bytes = 128U << 10;         // ciphertext taken by one receive
  static constexpr std::size_t write_bytes_max = 256U << 10;  // taken by one write()
  static constexpr std::size_t read_bytes_max = 128U << 10;   // given by one read()
  static constexpr std::size_t out_bytes_max = 1U << 20;
  // 2^22 full records are 64 GiB; AES-GCM allows 2^24.5 (RFC 8446, 5.5).
  static constexpr std::uint64_t default_records_per_key = 1ULL << 22;

  // A connected socket that does not block.
  static Result<std::unique_ptr<TlsStream>> create(
      Socket socket, SSL_CTX& context, TlsRole role, std::string partner,
      std::uint64_t records_per_key = default_records_per_key);
  ~TlsStream() override;

  // Goes on with it: `moved` when it is done, `blocked` when it waits for the other side, or, when
  // has_unsent(), for the socket to take more. After a failure the alert has been sent as far as
  // the socket took it.
  StreamStep handshake();

  Socket& socket() override { return socket_; }
  StreamStep read(std::span<const iovec> parts) override;
  StreamStep write(std::span<const iovec> parts) override;
  [[nodiscard]] bool has_unread() const override;
  [[nodiscard]] bool has_unsent() const override;
  void end_sending() override;
  void close() override;

 private:
  struct Buffers;  // what the BIO of OpenSSL reads and writes

  TlsStream(Socket socket, std::string partner, std::uint64_t records_per_key);
  static int verify(X509_STORE_CTX* check, void*);
  StreamStep flush();
  StreamStep fill();
  bool encrypt(const std::byte* data, std::size_t size);
  bool change_keys_if_due(std::size_t records);
  StreamStep fail(int result);
  void say_goodbye();

  Socket socket_;
  std::string partner_;
  std::uint64_t records_per_key_;
  std::uint64_t records_ = 0;  // sent with the present key
  std::unique_ptr<Buffers> buffers_;
  SslHandle ssl_;
  std::vector<std::byte> record_;  // small parts are gathered here
  std::string refusal_;            // why the certificate of the other side is refused
  std::optional<StreamStep> end_;  // ended or failed: nothing comes after it
  bool ready_ = false;             // the handshake is done
  bool said_goodbye_ = false;
};

}  // namespace havm
