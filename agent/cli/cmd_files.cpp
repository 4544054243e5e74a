// cluster-validate, policy-validate: checking files without havmd.
#include "agent/cli/command_context.hpp"
#include "agent/cli/command_table.hpp"
#include "agent/cli/policy_file.hpp"

namespace havm {
namespace {

void tell_valid(CommandContext& context, const std::string& what) {
  const std::string path = context.get("file");
  if (context.wants_json()) {
    nlohmann::json out;
    out["file"] = path;
    out["valid"] = true;
    context.print_json(out);
  } else {
    context.terminal().print_extra(what + " '" + printable(path) + "' is valid\n");
  }
}

}  // namespace

Result<void> run_cluster_validate(CommandContext& context) {
  BOOST_OUTCOME_TRY(check_cluster_file(context.get("file")));
  tell_valid(context, "Cluster configuration");
  return success();
}

Result<void> run_policy_validate(CommandContext& context) {
  BOOST_OUTCOME_TRY(read_policy_file(context.get("file")));
  tell_valid(context, "Policy");
  return success();
}

}  // namespace havm
