// The job of Paths: the one place that knows where havmd keeps its files.
#pragma once

#include <string>

namespace havm {

struct Paths {
  std::string state = "/var/lib/havm";  // survives a reboot
  std::string run = "/run/havm";        // does not
  std::string tls = "/etc/havm/tls";    // certificates of this node
  std::string programs;                 // directory of havm-repl and havm-guard

  [[nodiscard]] std::string api_socket() const { return run + "/havmd.sock"; }
  [[nodiscard]] std::string guard_socket() const { return run + "/guard.sock"; }
  [[nodiscard]] std::string history() const { return state + "/history.db"; }
  [[nodiscard]] std::string vms() const { return state + "/vms"; }
  [[nodiscard]] std::string vm_state(const std::string& vm) const { return vms() + "/" + vm; }
  [[nodiscard]] std::string definition(const std::string& vm) const {
    return vm_state(vm) + "/vm.json";
  }
  [[nodiscard]] std::string domain_xml(const std::string& vm) const {
    return vm_state(vm) + "/domain.xml";
  }
  [[nodiscard]] std::string node_notes(const std::string& vm) const {
    return vm_state(vm) + "/node.json";
  }
  [[nodiscard]] std::string verify_record(const std::string& vm) const {
    return vm_state(vm) + "/verify.json";
  }
  [[nodiscard]] std::string record(const std::string& vm) const { return vm_state(vm) + "/record"; }
  [[nodiscard]] std::string engine_config(const std::string& vm) const {
    return vm_state(vm) + "/engine.json";
  }
  [[nodiscard]] std::string engine_log(const std::string& vm) const {
    return vm_state(vm) + "/engine.log";
  }
  [[nodiscard]] std::string vm_run(const std::string& vm) const { return run + "/vms/" + vm; }
  [[nodiscard]] std::string control_socket(const std::string& vm) const {
    return vm_run(vm) + "/control.sock";
  }
  [[nodiscard]] std::string nbd_socket(const std::string& vm, const std::string& disk) const {
    return vm_run(vm) + "/" + disk + ".nbd";
  }
  // Exists while this node is between starting QEMU (paused) and letting its vCPUs run.
  [[nodiscard]] std::string start_mark(const std::string& vm) const {
    return vm_run(vm) + "/starting";
  }
  [[nodiscard]] std::string permit(const std::string& vm) const { return run + "/permit/" + vm; }
};

}  // namespace havm
