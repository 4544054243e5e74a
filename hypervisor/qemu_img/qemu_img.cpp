#include "hypervisor/qemu_img/qemu_img.hpp"

#include <algorithm>
#include <cerrno>
#include <utility>

#include <nlohmann/json.hpp>
#include <sys/stat.h>

namespace havm {
namespace {

using Json = nlohmann::json;

// qemu-img takes "name:rest" for a protocol and "-x" for an option; a path with a slash first is
// neither.
std::string as_path(const std::string& path) {
  return path.starts_with('/') ? path : "./" + path;
}

void add_access(std::vector<std::string>& arguments, ImageAccess access) {
  if (access == ImageAccess::shared) arguments.emplace_back("-U");
}

// qemu-img's last line without its name in front; it mentions the file itself most of the time.
std::string complaint(const ProcessOutcome& outcome) {
  std::string text = outcome.err;
  while (!text.empty() && (text.back() == '\n' || text.back() == ' '))
    text.pop_back();
  std::ranges::replace(text, '\n', ' ');
  constexpr std::string_view prefix = "qemu-img: ";
  if (text.starts_with(prefix)) text.erase(0, prefix.size());
  if (outcome.signal != 0) text += " (ended by signal " + std::to_string(outcome.signal) + ")";
  return text.empty() ? "exit status " + std::to_string(outcome.exit_status) : text;
}

int errno_of(const std::string& text) {
  const std::pair<const char*, int> known[] = {{"No such file or directory", ENOENT},
                                               {"Permission denied", EACCES},
                                               {"Failed to get", EBUSY},  // the image lock
                                               {"No space left on device", ENOSPC},
                                               {"does not support checks", ENOTSUP}};
  for (const auto& [part, code] : known)
    if (text.find(part) != std::string::npos) return code;
  return EIO;
}

Error failure(const std::string& doing, const std::string& path, const ProcessOutcome& outcome) {
  const std::string text = complaint(outcome);
  const int code = errno_of(text);
  std::string message = "cannot " + doing + " image " + path + ": " + text;
  if (code == EBUSY) message += "; it is in use, shut the VM that uses it down first";
  return Error(message, code);
}

Result<Json> parse(const std::string& doing, const std::string& path, const std::string& text) {
  Json json = Json::parse(text, nullptr, false);
  if (json.is_object()) return json;
  return Error("cannot " + doing + " image " + path + ": qemu-img did not answer in JSON", EPROTO);
}

// Missing or of another type: the default. qemu-img leaves out what does not apply.
template <class T>
T member(const Json& object, const char* key, T otherwise) {
  const auto found = object.find(key);
  if (found == object.end()) return otherwise;
  if constexpr (std::is_same_v<T, std::string>) return found->is_string() ? T(*found) : otherwise;
  if constexpr (std::is_same_v<T, bool>) return found->is_boolean() ? T(*found) : otherwise;
  if constexpr (std::is_integral_v<T> && !std::is_same_v<T, bool>)
    return found->is_number_unsigned() ? T(*found) : otherwise;
}

ImageInfo info_from(const Json& json, const std::string& path) {
  ImageInfo info;
  info.path = path;
  info.format = member(json, "format", std::string());
  info.virtual_size_bytes = member(json, "virtual-size", std::uint64_t{0});
  info.actual_size_bytes = member(json, "actual-size", std::uint64_t{0});
  info.cluster_size_bytes = member(json, "cluster-size", std::uint64_t{0});
  info.backing_file = member(json, "backing-filename", std::string());
  info.dirty = member(json, "dirty-flag", false);
  info.encrypted = member(json, "encrypted", false);
  const Json specific = json.value("format-specific", Json::object());
  const Json data = specific.value("data", Json::object());
  info.data_file = member(data, "data-file", std::string());
  info.compat = member(data, "compat", std::string());
  info.extended_l2 = member(data, "extended-l2", false);
  info.refcount_bits = member(data, "refcount-bits", 16U);
  info.corrupt = member(data, "corrupt", false);
  for (const Json& snapshot : json.value("snapshots", Json::array()))
    info.snapshots.push_back(member(snapshot, "name", std::string()));
  return info;
}

Result<void> must_not_exist(const std::string& path) {
  struct stat status {};
  if (::lstat(path.c_str(), &status) == 0)
    return Error("image " + path + " exists already; remove it or choose another name", EEXIST);
  if (errno != ENOENT) return errno_error("cannot look at image " + path, errno);
  return success();
}

}  // namespace

Result<ProcessOutcome> QemuImg::run(std::vector<std::string> arguments,
                                    std::chrono::milliseconds deadline) const {
  arguments.insert(arguments.begin(), program_);
  ProcessLimits limits;
  limits.deadline = deadline;
  auto outcome = run_process(arguments, limits);
  if (outcome.has_value()) return outcome;
  Error error = outcome.error();
  if (error.code == ENOENT) error.message += "; install qemu-utils";
  return error;
}

Result<ImageInfo> QemuImg::info(const std::string& path, const std::string& format,
                                ImageAccess access) const {
  std::vector<std::string> arguments{"info", "--output=json"};
  add_access(arguments, access);
  if (!format.empty()) arguments.insert(arguments.end(), {"-f", format});
  arguments.push_back(as_path(path));
  BOOST_OUTCOME_TRY(const ProcessOutcome outcome, run(std::move(arguments), short_deadline));
  if (outcome.exit_status != 0) return failure("read", path, outcome);
  BOOST_OUTCOME_TRY(const Json json, parse("read", path, outcome.out));
  ImageInfo info = info_from(json, path);
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) return errno_error("cannot look at image " + path, errno);
  if (S_ISREG(status.st_mode)) info.file_size_bytes = static_cast<std::uint64_t>(status.st_size);
  return info;
}

Result<ImageMeasure> QemuImg::measure(const std::string& path, const std::string& format,
                                      ImageAccess access) const {
  BOOST_OUTCOME_TRY(const ImageInfo found, info(path, format, access));
  std::vector<std::string> arguments{"measure", "--output=json", "-f", format, "-O", format};
  add_access(arguments, access);
  if (format == "qcow2") {
    // Without these qemu-img measures a new file with default clusters, not one like this.
    const std::string compat = found.compat.empty() ? "1.1" : found.compat;
    arguments.insert(
        arguments.end(),
        {"-o", "cluster_size=" + std::to_string(found.cluster_size_bytes) + ",compat=" + compat +
                   ",refcount_bits=" + std::to_string(found.refcount_bits) +
                   (found.extended_l2 ? ",extended_l2=on" : "")});
  }
  arguments.push_back(as_path(path));
  BOOST_OUTCOME_TRY(const ProcessOutcome outcome, run(std::move(arguments), short_deadline));
  if (outcome.exit_status != 0) return failure("measure", path, outcome);
  BOOST_OUTCOME_TRY(const Json json, parse("measure", path, outcome.out));
  ImageMeasure measured;
  measured.required_bytes = member(json, "required", std::uint64_t{0});
  measured.fully_allocated_bytes =
      member(json, "fully-allocated", std::uint64_t{0}) + member(json, "bitmaps", std::uint64_t{0});
  if (measured.fully_allocated_bytes == 0)
    return Error("cannot measure image " + path + ": qemu-img named no size", EPROTO);
  return measured;
}

Result<std::uint64_t> QemuImg::growth_limit_bytes(const std::string& path,
                                                  const std::string& format,
                                                  ImageAccess access) const {
  BOOST_OUTCOME_TRY(const ImageInfo found, info(path, format, access));
  if (format == "raw") return std::max(found.file_size_bytes, found.virtual_size_bytes);
  BOOST_OUTCOME_TRY(const ImageMeasure measured, measure(path, format, access));
  // Clusters held by snapshots stay while every block is written anew: at most the file as it is
  // now.
  const std::uint64_t snapshots = found.snapshots.empty() ? 0 : found.file_size_bytes;
  // A table that outgrows its place is first written elsewhere and then freed; leaked clusters
  // stay.
  const std::uint64_t margin =
      std::max<std::uint64_t>(std::uint64_t{16} << 20, measured.fully_allocated_bytes / 512);
  const std::uint64_t limit =
      std::max(measured.fully_allocated_bytes + snapshots, found.file_size_bytes) + margin;
  constexpr std::uint64_t unit = std::uint64_t{1} << 20;
  return (limit + unit - 1) / unit * unit;
}

Result<void> QemuImg::convert(const std::string& from, const std::string& from_format,
                              const std::string& to, const std::string& to_format,
                              std::chrono::milliseconds deadline) const {
  BOOST_OUTCOME_TRY(must_not_exist(to));
  BOOST_OUTCOME_TRY(const ProcessOutcome outcome,
                    run({"convert", "-f", from_format, "-O", to_format, "-t", "writeback",
                         as_path(from), as_path(to)},
                        deadline));
  if (outcome.exit_status != 0) return failure("convert to " + to + " the", from, outcome);
  return success();
}

Result<bool> QemuImg::identical(const std::string& a, const std::string& a_format,
                                const std::string& b, const std::string& b_format,
                                std::chrono::milliseconds deadline) const {
  BOOST_OUTCOME_TRY(
      const ProcessOutcome outcome,
      run({"compare", "-f", a_format, "-F", b_format, as_path(a), as_path(b)}, deadline));
  if (outcome.exit_status == 0) return true;
  if (outcome.exit_status == 1) return false;
  return failure("compare with " + b + " the", a, outcome);
}

Result<void> QemuImg::create(const std::string& path, const std::string& format,
                             std::uint64_t virtual_size_bytes) const {
  BOOST_OUTCOME_TRY(must_not_exist(path));
  BOOST_OUTCOME_TRY(const ProcessOutcome outcome, run({"create", "-q", "-f", format, as_path(path),
                                                       std::to_string(virtual_size_bytes)},
                                                      short_deadline));
  if (outcome.exit_status != 0) return failure("create", path, outcome);
  return success();
}

Result<ImageCheck> QemuImg::check(const std::string& path, const std::string& format,
                                  ImageAccess access) const {
  std::vector<std::string> arguments{"check", "--output=json", "-f", format};
  add_access(arguments, access);
  arguments.push_back(as_path(path));
  BOOST_OUTCOME_TRY(const ProcessOutcome outcome, run(std::move(arguments), copy_deadline));
  // 0 clean, 2 corruptions, 3 leaks; all three come with JSON.
  const int status = outcome.exit_status;
  if (status != 0 && status != 2 && status != 3) return failure("check", path, outcome);
  BOOST_OUTCOME_TRY(const Json json, parse("check", path, outcome.out));
  ImageCheck found;
  found.corruptions = member(json, "corruptions", std::uint64_t{0});
  found.leaks = member(json, "leaks", std::uint64_t{0});
  found.check_errors = member(json, "check-errors", std::uint64_t{0});
  found.image_end_offset_bytes = member(json, "image-end-offset", std::uint64_t{0});
  return found;
}

}  // namespace havm
