// The job of these functions: wait for what havmd does in the background, with progress on a
// terminal. They only look: interrupting havm changes nothing at havmd. A havmd that does not
// answer for a while (a restart) is borne for `patience`; not answering at the first question is an
// error at once.
#pragma once

#include <chrono>
#include <functional>
#include <optional>
#include <string>

#include <nlohmann/json.hpp>

#include "agent/cli/command_context.hpp"

namespace havm {

inline constexpr std::chrono::milliseconds poll_interval{200};
inline constexpr std::chrono::seconds patience{60};

// Follows an operation to its end; the operation object, or its error.
Result<nlohmann::json> follow_operation(CommandContext& context, const std::string& id);

// If the answer is a 202, follows the operation; else its body. For requests that may be either.
Result<nlohmann::json> finish(CommandContext& context, const ApiAnswer& answer);

// Waits until `reached(vm)`; the vm object then. `goal` is for the message when time is up.
Result<nlohmann::json> wait_for_vm(CommandContext& context, const std::string& vm,
                                   const std::string& goal,
                                   std::optional<std::chrono::milliseconds> timeout,
                                   const std::function<bool(const nlohmann::json&)>& reached);

// Waits until no verify is running here, or another node is owner.
Result<nlohmann::json> wait_for_verify(CommandContext& context, const std::string& vm,
                                       std::optional<std::chrono::milliseconds> timeout);

}  // namespace havm
