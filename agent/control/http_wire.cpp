#include "agent/control/http_wire.hpp"

#include <cerrno>
#include <cstring>

#include <boost/asio/ip/address.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <sys/un.h>

namespace havm {
namespace {

int hex_value(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

bool is_unreserved(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
         c == '.' || c == '_' || c == '~';
}

Result<std::string> decode_segment(std::string_view segment) {
  if (segment.empty()) return Error("the path has an empty segment", EINVAL);
  std::string text;
  for (std::size_t i = 0; i < segment.size(); ++i) {
    char c = segment[i];
    if (c == '%') {
      const int high = i + 2 < segment.size() ? hex_value(segment[i + 1]) : -1;
      const int low = i + 2 < segment.size() ? hex_value(segment[i + 2]) : -1;
      if (high < 0 || low < 0) return Error("the path has a bad percent escape", EINVAL);
      c = static_cast<char>(high * 16 + low);
      i += 2;
    }
    if (c == '\0') return Error("the path has a NUL character", EINVAL);
    text.push_back(c);
  }
  return text;
}

}  // namespace

Result<HttpTarget> decode_http_target(std::string_view target) {
  HttpTarget result;
  if (target.find('#') != std::string_view::npos)
    return Error("the request target contains '#'", EINVAL);
  const std::size_t question = target.find('?');
  std::string_view path = target.substr(0, question);
  if (question != std::string_view::npos) result.query = std::string(target.substr(question + 1));
  if (path.empty() || path.front() != '/')
    return Error("the request target does not start with '/'", EINVAL);
  path.remove_prefix(1);
  if (path.empty()) return result;
  while (true) {
    const std::size_t slash = path.find('/');
    BOOST_OUTCOME_TRY(auto segment, decode_segment(path.substr(0, slash)));
    result.path.push_back(std::move(segment));
    if (slash == std::string_view::npos) return result;
    path.remove_prefix(slash + 1);
  }
}

std::string http_target(const std::vector<std::string>& segments) {
  static constexpr char digits[] = "0123456789ABCDEF";
  std::string target;
  for (const std::string& segment : segments) {
    target.push_back('/');
    for (const char c : segment) {
      if (is_unreserved(c)) {
        target.push_back(c);
        continue;
      }
      const auto byte = static_cast<unsigned char>(c);
      target.push_back('%');
      target.push_back(digits[byte >> 4]);
      target.push_back(digits[byte & 15]);
    }
  }
  return target.empty() ? "/" : target;
}

Result<nlohmann::json> parse_http_body(const std::string& body) {
  if (body.empty()) return nlohmann::json();
  bool too_deep = false;
  const auto check_depth = [&too_deep](int depth, nlohmann::json::parse_event_t, nlohmann::json&) {
    too_deep = too_deep || depth > http_json_depth_max;
    return !too_deep;  // false drops the part: nothing deep is ever built
  };
  try {
    nlohmann::json value = nlohmann::json::parse(body, check_depth);
    if (!too_deep) return value;
  } catch (const nlohmann::json::exception& e) {
    return Error(std::string("the body is not valid JSON: ") + e.what(), EINVAL);
  }
  return Error(
      "the JSON body is nested deeper than " + std::to_string(http_json_depth_max) + " levels",
      EINVAL);
}

std::string dump_http_body(const nlohmann::json& body) {
  return body.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

const sockaddr* SocketAddress::get() const {
  return static_cast<const sockaddr*>(static_cast<const void*>(&storage));
}

Result<SocketAddress> socket_address(const HttpEndpoint& endpoint) {
  SocketAddress result;
  if (!endpoint.unix_path.empty()) {
    sockaddr_un local{};
    local.sun_family = AF_UNIX;
    if (endpoint.unix_path.size() >= sizeof local.sun_path)
      return Error("the socket path " + endpoint.unix_path + " is longer than " +
                       std::to_string(sizeof local.sun_path - 1) +
                       " bytes: use a shorter directory",
                   ENAMETOOLONG);
    std::memcpy(local.sun_path, endpoint.unix_path.data(), endpoint.unix_path.size());
    std::memcpy(&result.storage, &local, sizeof local);
    result.size_bytes = sizeof local;
    return result;
  }
  boost::system::error_code ec;
  const auto address = boost::asio::ip::make_address(endpoint.address, ec);
  if (ec)
    return Error(
        "'" + endpoint.address + "' is not a numeric IP address: names are not resolved here",
        EINVAL);
  const boost::asio::ip::tcp::endpoint tcp(address, endpoint.port);
  std::memcpy(&result.storage, tcp.data(), tcp.size());
  result.size_bytes = static_cast<socklen_t>(tcp.size());
  return result;
}

HttpEndpoint HttpEndpoint::unix_socket(std::string path) {
  HttpEndpoint endpoint;
  endpoint.unix_path = std::move(path);
  return endpoint;
}

HttpEndpoint HttpEndpoint::tcp(std::string address, std::uint16_t port) {
  HttpEndpoint endpoint;
  endpoint.address = std::move(address);
  endpoint.port = port;
  return endpoint;
}

std::string HttpEndpoint::text() const {
  if (!unix_path.empty()) return unix_path;
  const bool v6 = address.find(':') != std::string::npos;
  return (v6 ? "[" + address + "]" : address) + ":" + std::to_string(port);
}

HttpResponse HttpResponse::error(int status, const std::string& sentence) {
  nlohmann::json body = nlohmann::json::object();
  body["error"] = sentence;
  return HttpResponse(status, std::move(body));
}

}  // namespace havm
