// The job of the API service: the routes of docs/protocol/api.md onto Havmd. `daemon` must outlive
// the handler.
#pragma once

#include "agent/control/http.hpp"

namespace havm {

class Havmd;

HttpHandler make_api_handler(Havmd& daemon);

}  // namespace havm
