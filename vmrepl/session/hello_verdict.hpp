// The job of judge_hello: may this replica become the secondary of the owner that says hello? A
// pure function of both sides; what it does not know it refuses.
#pragma once

#include <optional>
#include <string>

#include "vmrepl/disk/record_types.hpp"
#include "vmrepl/wire/repl_messages.hpp"

namespace havm {

// What the secondary's side knows.
struct HelloContext {
  std::string vm;
  std::string vm_id;
  std::string partner;  // the node name that may be owner beside this one
  std::vector<DiskIdentity> disks;
  std::chrono::milliseconds lease{0};
};

// Nothing when the hello is accepted, else why not, for the owner's administrator.
// promised: the highest epoch promised or being promised. is_owner: this engine has the owner role.
std::optional<std::string> judge_hello(const HelloContext& self, const Record& record,
                                       Epoch promised, bool is_owner, const Hello& hello);

}  // namespace havm
