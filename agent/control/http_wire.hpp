// The job of these functions: what server and client of http.hpp share, without sockets: targets ↔
// segments, bodies ↔ JSON, endpoints ↔ socket addresses. Pure but for their error texts; any
// thread.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>
#include <sys/socket.h>

#include "agent/control/http.hpp"
#include "vmrepl/base/result.hpp"

namespace havm {

constexpr std::size_t http_request_bytes_max = std::size_t{4} << 20;
constexpr std::size_t http_response_bytes_max = std::size_t{16} << 20;
// Deeper JSON is refused: code that walks a document recursively must not exhaust its stack.
constexpr int http_json_depth_max = 64;

struct HttpTarget {
  std::vector<std::string> path;
  std::string query;
};

// Splits at '?' and '/', decodes %XX in the path. Refuses a target that does not start with '/',
// bad escapes, NUL, '#' and empty segments ("//" or a trailing '/'); "/" alone is the empty path.
Result<HttpTarget> decode_http_target(std::string_view target);

// Null when the body is empty. The Error is one sentence; it may quote the input.
Result<nlohmann::json> parse_http_body(const std::string& body);

// Never throws: bytes that are not UTF-8 become U+FFFD.
std::string dump_http_body(const nlohmann::json& body);

struct SocketAddress {
  sockaddr_storage storage{};
  socklen_t size_bytes = 0;

  SocketAddress() = default;
  [[nodiscard]] const sockaddr* get() const;
};

// Error when the path is too long for a unix socket or the address is not numeric.
Result<SocketAddress> socket_address(const HttpEndpoint& endpoint);

}  // namespace havm
