#include "hypervisor/libvirt/qemu_process.hpp"

#include <cerrno>
#include <charconv>

#include "vmrepl/base/files.hpp"

namespace havm {
namespace {

Error not_running(const std::string& domain) {
  return Error("domain '" + domain + "' is not running", ENOENT);
}

// 0 when the text is no process id.
int to_pid(const std::string& text) {
  int pid = 0;
  const auto [end, failed] = std::from_chars(text.data(), text.data() + text.size(), pid);
  const bool complete = end == text.data() + text.size() || *end == '\n';
  return failed == std::errc() && complete && pid > 1 ? pid : 0;
}

}  // namespace

bool is_qemu_of(const std::string& command_line, const std::string& domain) {
  // libvirt starts QEMU with "-name guest=NAME,debug-threads=on"; QEMU doubles commas inside a
  // value.
  std::string wanted = "guest=";
  for (const char c : domain)
    wanted += c == ',' ? ",," : std::string(1, c);
  constexpr std::string_view option("\0-name\0", 7);
  const std::size_t at = command_line.find(option);
  if (at == std::string::npos) return false;
  const std::size_t start = at + option.size();
  const std::string value = command_line.substr(start, command_line.find('\0', start) - start);
  if (!value.starts_with(wanted)) return false;
  const std::string rest = value.substr(wanted.size());
  return rest.empty() || (rest[0] == ',' && !rest.starts_with(",,"));
}

Result<int> qemu_process_id(const std::string& domain,
                            const std::vector<std::string>& directories) {
  if (domain.empty() || domain.find('/') != std::string::npos) return not_running(domain);
  for (const std::string& directory : directories) {
    const auto text = read_file(directory + "/" + domain + ".pid");
    if (!text) {
      if (text.error().code == ENOENT) continue;
      return text.error();
    }
    const int pid = to_pid(text.value());
    if (pid == 0) continue;
    const auto command_line = read_file("/proc/" + std::to_string(pid) + "/cmdline");
    if (command_line && is_qemu_of(command_line.value(), domain)) return pid;
  }
  return not_running(domain);
}

}  // namespace havm
