// The job of the peer service: the routes of docs/protocol/peer.md, what the partner's havmd may
// ask of this one. `daemon` must outlive the handler.
#pragma once

#include "agent/control/http.hpp"

namespace havm {

class Havmd;

HttpHandler make_peer_handler(Havmd& daemon);

}  // namespace havm
