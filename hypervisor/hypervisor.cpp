#include "hypervisor/hypervisor.hpp"

namespace havm {

const char* to_string(DomainState state) {
  switch (state) {
    case DomainState::running:
      return "running";
    case DomainState::paused:
      return "paused";
    case DomainState::shutting_down:
      return "in shutdown";
    case DomainState::shut_off:
      return "shut off";
    case DomainState::crashed:
      return "crashed";
    case DomainState::pm_suspended:
      return "pmsuspended";
    case DomainState::unknown:
      return "no state";
  }
  return "no state";
}

}  // namespace havm
