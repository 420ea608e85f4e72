# capsfw_embed(TARGET FILE NAME): the text of FILE, at most 64 kB, as `extern const char* const NAME` of
# namespace capsfw::apps, compiled into TARGET. A changed file is embedded again by the next build.
if(CMAKE_SCRIPT_MODE_FILE)
  file(READ ${FILE} text)
  file(WRITE ${OUT} "namespace capsfw::apps {\nextern const char* const ${NAME};\n"
                    "const char* const ${NAME} = R\"embedded(${text})embedded\";\n}\n")
  return()
endif()

set(CAPSFW_EMBED_SCRIPT ${CMAKE_CURRENT_LIST_FILE})
function(capsfw_embed target file name)
  set(out ${CMAKE_CURRENT_BINARY_DIR}/${name}.cpp)
  add_custom_command(OUTPUT ${out} DEPENDS ${file} ${CAPSFW_EMBED_SCRIPT} VERBATIM
                     COMMAND ${CMAKE_COMMAND} -DFILE=${file} -DOUT=${out} -DNAME=${name} -P ${CAPSFW_EMBED_SCRIPT})
  target_sources(${target} PRIVATE ${out})
endfunction()
