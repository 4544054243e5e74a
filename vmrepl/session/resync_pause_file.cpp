#include "vmrepl/session/resync_pause_file.hpp"

#include <cerrno>

#include <nlohmann/json.hpp>
#include <unistd.h>

#include "vmrepl/base/files.hpp"

namespace havm {

Result<std::optional<std::string>> ResyncPauseFile::load() const {
  const auto text = read_file(path_);
  if (!text && text.error().code == ENOENT) return std::optional<std::string>();
  if (!text) return text.error();
  const auto json = nlohmann::json::parse(text.value(), nullptr, false);
  if (json.is_object() && json.contains("reason") && json["reason"].is_string())
    return std::optional<std::string>(json["reason"].get<std::string>());
  return std::optional<std::string>("paused before; the file " + path_ +
                                    " that says why is damaged");
}

Result<void> ResyncPauseFile::save(const std::string& reason) const {
  nlohmann::json json;
  json["version"] = 1;
  json["reason"] = reason;
  return replace_file(path_,
                      json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n");
}

Result<void> ResyncPauseFile::remove() const {
  if (::unlink(path_.c_str()) == 0) return sync_directory_of(path_);
  if (errno == ENOENT) return success();
  return errno_error("cannot remove " + path_, errno);
}

}  // namespace havm
