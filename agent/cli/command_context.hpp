// The job of CommandContext: what a command needs: its options, the terminal, havmd.
#pragma once

#include <chrono>
#include <optional>
#include <string>

#include <nlohmann/json.hpp>

#include "agent/cli/api_client.hpp"
#include "agent/cli/command_line.hpp"
#include "agent/cli/terminal.hpp"

namespace havm {

class CommandContext {
 public:
  CommandContext(const GlobalOptions& global, ParsedOptions options, Terminal& terminal)
      : global_(global), options_(std::move(options)), terminal_(terminal), api_(global.socket) {}

  [[nodiscard]] bool has(const std::string& option) const { return options_.contains(option); }
  // The value of an option that was given; "" otherwise.
  [[nodiscard]] std::string get(const std::string& option) const;
  [[nodiscard]] bool wants_json() const { return global_.json || has("json"); }
  [[nodiscard]] bool quiet() const { return terminal_.quiet; }
  Terminal& terminal() { return terminal_; }
  ApiClient& api() { return api_; }

  // --timeout in seconds, decimals allowed; nullopt when not given.
  [[nodiscard]] Result<std::optional<std::chrono::milliseconds>> timeout() const;
  // The name of the domain given by name or uuid. A name is not looked up.
  Result<std::string> domain();
  // GET /v1/vms/<domain>
  Result<nlohmann::json> get_vm(const std::string& vm);

  void print_json(const nlohmann::json& value);

 private:
  const GlobalOptions& global_;
  ParsedOptions options_;
  Terminal& terminal_;
  ApiClient api_;
};

}  // namespace havm
