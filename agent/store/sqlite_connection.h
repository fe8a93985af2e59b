// Statements and transactions over one SQLite connection.
#pragma once

#include <sqlite3.h>

#include <cstdint>
#include <map>
#include <string>
#include <string_view>

#include "envelope/base/bytes.h"
#include "envelope/base/result.h"

namespace keyescrow::agent::store {

// ConfigureSqlite sets what holds for the whole process; call it before a connection is opened.
void ConfigureSqlite();

// LastError is the error of the connection's last call.
Error LastError(sqlite3* connection);

// Statement is one use of a prepared statement: bind in order, Step, read columns. It is reset at
// the end of its scope; the connection's cache owns it. The first failing bind is told by Step.
class Statement {
 public:
  Statement(sqlite3* connection, sqlite3_stmt* statement, int prepare_code)
      : connection_(connection), statement_(statement), code_(prepare_code) {}
  Statement(const Statement&) = delete;
  Statement& operator=(const Statement&) = delete;
  ~Statement();

  Statement& Bind(std::int64_t value);
  Statement& Bind(std::string_view text);  // bytes must outlive the statement's use
  Statement& Bind(ByteView blob);
  Statement& BindNull();

  // Step returns whether there is a row. Errors: SqliteError's.
  Result<bool> Step();
  // Run steps a statement that returns no rows.
  Status Run();

  std::int64_t Integer(int column) const { return sqlite3_column_int64(statement_, column); }
  std::string_view Text(int column) const;
  ByteView Blob(int column) const;
  bool IsNull(int column) const { return sqlite3_column_type(statement_, column) == SQLITE_NULL; }

 private:
  sqlite3* connection_;
  sqlite3_stmt* statement_;
  int code_;
  int next_ = 1;
};

// Connection owns the database handle and its prepared statements.
class Connection {
 public:
  explicit Connection(sqlite3* handle) : handle_(handle) {}
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;
  ~Connection();

  sqlite3* handle() { return handle_; }
  // Prepare returns the statement for `sql`, a string literal: its address is the cache's key.
  Statement Prepare(const char* sql);
  // Execute runs one or more statements without parameters or rows.
  Status Execute(const char* sql);
  Error MakeError() { return LastError(handle_); }

 private:
  sqlite3* handle_;
  std::map<const char*, sqlite3_stmt*> statements_;
};

// Transaction rolls back at the end of its scope unless it was committed.
class Transaction {
 public:
  explicit Transaction(Connection& connection) : connection_(connection) {}
  ~Transaction() { Rollback(); }
  Status BeginImmediate() { return Begin("BEGIN IMMEDIATE"); }
  Status BeginRead() { return Begin("BEGIN"); }
  Status Commit();
  void Rollback();

 private:
  Status Begin(const char* sql);
  Connection& connection_;
  bool open_ = false;
};

}  // namespace keyescrow::agent::store
