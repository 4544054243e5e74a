// The job of this core: turn the 28 bytes of a request into what the server must do with it.
// Everything a client can get wrong is found here, before the service sees the request. Pure.
//
// Rules (proto.md leaves a choice in some; this is ours)
//  1. Bad magic, or a write larger than nbd_payload_bytes_max, drops the connection: the next
//     request's place in the stream is unknown, or not worth reading up to.
//  2. Beyond the end: ENOSPC for write and write_zeroes, EINVAL for the others.
//  3. Not a multiple of the alignment, an unknown command, an unknown or misplaced flag: EINVAL.
//     FUA is accepted on every command (proto.md demands it) and obeyed where something is written.
//  4. An empty read, write, trim or write_zeroes inside the disk succeeds and does nothing.
//  5. trim, write_zeroes and block_status carry no payload: any length up to the end is valid.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "vmrepl/nbd/nbd_handshake_core.hpp"
#include "vmrepl/nbd/nbd_protocol.hpp"

namespace havm {

struct NbdRequest {
  std::uint32_t magic = 0;
  std::uint16_t flags = 0;
  std::uint16_t command = 0;
  std::uint64_t cookie = 0;  // the client's, returned in the reply
  std::uint64_t offset = 0;
  std::uint32_t length = 0;
};

enum class NbdAction : std::uint8_t {
  read,
  write,
  flush,
  trim,
  write_zeroes,
  block_status,
  succeed,     // nothing to do: answer success
  refuse,      // answer `error`
  disconnect,  // the client ends the connection: answer what is under way, then close
  drop,        // close at once
};

struct NbdVerdict {
  NbdAction action = NbdAction::drop;
  bool fua = false;
  bool may_unmap = false;
  bool one_extent = false;
  // Bytes that follow the request in the stream and must be read, whatever the action.
  std::uint32_t payload_bytes = 0;
  std::uint32_t error = 0;  // NBD error value, for refuse
  std::string_view reason;  // for refuse and drop; a literal
};

NbdRequest decode_nbd_request(std::span<const std::byte, nbd_request_bytes> bytes);

NbdVerdict judge_nbd_request(const NbdRequest& request, const NbdExport& served,
                             const NbdAgreement& agreement);

}  // namespace havm
