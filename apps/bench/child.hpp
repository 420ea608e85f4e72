#pragma once
// Another program that answers line by line.

#include <sys/types.h>

#include <string>
#include <vector>

namespace capsfw::bench {

/// A running program whose standard input and output are ours. The destructor closes them and waits
/// for its end.
class Child {
 public:
  /// Searches PATH. Error if it cannot be started.
  explicit Child(std::vector<std::string> argv);
  ~Child();
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  /// Writes a line; false if nobody reads any more.
  bool say(const std::string& line);
  /// The next line, without its end; false at the end of the output.
  bool hear(std::string& line);

 private:
  pid_t pid_ = 0;
  int socket_ = -1;
  std::string buffer_;
};

}  // namespace capsfw::bench
