#include "agent/policy/names.hpp"

#include "agent/policy/json_document.hpp"

namespace havm {
namespace {

// JSON is UTF-8; a name that is not could not be told to anybody.
bool valid_utf8(const std::string& text) {
  try {
    nlohmann::json(text).dump();
    return true;
  } catch (const nlohmann::json::type_error&) {
    return false;
  }
}

}  // namespace

std::optional<std::string> vm_name_problem(const std::string& name) {
  const auto because = [&name](const std::string& reason) {
    return "VM name " + shown(name) + " cannot be used: " + reason;
  };
  if (name.empty()) return because("it is empty");
  if (name.size() > max_vm_name_bytes)
    return because("it has " + std::to_string(name.size()) +
                   " bytes, and only 60 fit into the path of a unix socket; rename it with "
                   "'virsh domrename'");
  if (name == "." || name == "..") return because("it is used as the name of a folder");
  if (!valid_utf8(name)) return because("it is not valid UTF-8");
  for (const char c : name) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '/') return because("it contains '/' and is used as the name of a folder");
    if (c == ' ') return because("it contains a space, which separates words in havm's protocols");
    if (byte < 0x20 || byte == 0x7F) return because("it contains a control character");
  }
  return std::nullopt;
}

std::optional<std::string> node_name_problem(const std::string& name) {
  const auto plain = [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'); };
  bool good = !name.empty() && name.size() <= max_node_name_bytes && plain(name[0]);
  for (const char c : name)
    good = good && (plain(c) || c == '-');
  if (good) return std::nullopt;
  return "node name " + shown(name) +
         " cannot be used: expected lower-case letters, digits and '-' (at most 63, first a letter "
         "or digit)";
}

}  // namespace havm
