// The job of Terminal: what goes to standard output and standard error, and whether a person looks
// at it. Colours only on a terminal and never with NO_COLOR set; progress only when standard error
// is a terminal.
#pragma once

#include <string>

#include "vmrepl/base/result.hpp"

namespace havm {

enum class Colour { plain, good, warning, bad };

class Terminal {
 public:
  Terminal();  // of this process

  bool quiet = false;

  void print(const std::string& text);        // standard output
  void print_extra(const std::string& text);  // the same, not with -q
  void print_error(const Error& error);       // "error: …" for each line
  // True when standard input and standard error are a terminal and the answer begins with y or Y,
  // or when nobody can be asked.
  bool confirm(const std::string& question);
  // Control characters as virsh shows them (\x1B), so that no name can play with the terminal;
  // `text` coloured.
  [[nodiscard]] std::string coloured(const std::string& text, Colour colour) const;

  [[nodiscard]] bool shows_progress() const { return error_terminal_ && !quiet; }
  void print_progress(const std::string& line);  // replaces the line shown before
  void end_progress();                           // keeps the last line

  // False when something could not be written (a full disk, a closed pipe).
  bool flush();

 private:
  bool output_terminal_ = false;
  bool error_terminal_ = false;
  bool input_terminal_ = false;
  bool colours_ = false;
  bool progress_shown_ = false;
  std::size_t progress_columns_ = 0;
};

// `text` without control characters: "\x1B" instead of ESC.
std::string printable(const std::string& text);
// Columns that `text` (UTF-8) takes on a terminal.
std::size_t display_columns(const std::string& text);

}  // namespace havm
