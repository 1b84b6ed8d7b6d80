"""Chat templates of our own that do what those of known families do: what they write, add and refuse."""

LLAMA_2 = """
{%- set system = '' -%}
{%- if messages[0].role == 'system' -%}
  {%- set system = '<<SYS>>\n' + messages[0].content + '\n<</SYS>>\n\n' -%}
  {%- set messages = messages[1:] -%}
{%- endif -%}
{%- for message in messages -%}
  {%- if message.role != ('assistant' if loop.index0 % 2 else 'user') -%}
    {{- raise_exception('user and assistant must take turns') -}}
  {%- endif -%}
  {%- if message.role == 'user' -%}
    {{- bos_token + '[INST] ' + (system if loop.first else '') + message.content.strip() + ' [/INST]' -}}
  {%- else -%}
    {{- ' ' + message.content.strip() + ' ' + eos_token -}}
  {%- endif -%}
{%- endfor -%}
"""
LLAMA_3 = """
{%- macro turn(role) -%}
  {{- '<|start_header_id|>' + role + '<|end_header_id|>\n\n' -}}
{%- endmacro -%}
{%- set system = '' -%}
{%- if messages[0].role == 'system' -%}
  {%- set system = messages[0].content | trim -%}
  {%- set messages = messages[1:] -%}
{%- endif -%}
{{- bos_token + turn('system') + 'Date: ' + strftime_now('%d %b %Y') + '\n\n' + system + '<|eot_id|>' -}}
{%- for message in messages -%}
  {{- turn(message.role) + message.content | trim + '<|eot_id|>' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
  {{- turn('assistant') -}}
{%- endif -%}
"""
GEMMA = """
{{- bos_token -}}
{%- for message in messages -%}
  {%- if message.role == 'system' -%}
    {{- raise_exception('there is no system role') -}}
  {%- elif message.role != ('assistant' if loop.index0 % 2 else 'user') -%}
    {{- raise_exception('user and assistant must take turns') -}}
  {%- endif -%}
  {{- '<start_of_turn>' + ('model' if message.role == 'assistant' else 'user') + '\n' -}}
  {{- message.content | trim + '<end_of_turn>\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
  {{- '<start_of_turn>model\n' -}}
{%- endif -%}
"""
CHATML = """
{%- if messages[0].role != 'system' -%}
  {{- '<|im_start|>system\nDEFAULT<|im_end|>\n' -}}
{%- endif -%}
{%- for message in messages -%}
  {{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
  {{- '<|im_start|>assistant\n' -}}
{%- endif -%}
"""
MISTRAL = """
{%- set system = '' -%}
{%- if messages[0].role == 'system' -%}
  {%- set system = messages[0].content + '\n\n' -%}
  {%- set messages = messages[1:] -%}
{%- endif -%}
{{- bos_token -}}
{%- for message in messages -%}
  {%- if message.role != ('assistant' if loop.index0 % 2 else 'user') -%}
    {{- raise_exception('after an optional system message, user and assistant must take turns') -}}
  {%- endif -%}
  {%- if message.role == 'user' -%}
    {{- '[INST] ' + (system if loop.first else '') + message.content + '[/INST]' -}}
  {%- else -%}
    {{- ' ' + message.content | trim + eos_token -}}
  {%- endif -%}
{%- endfor -%}
"""
PHI_3 = """
{%- for message in messages -%}
  {{- '<|' + message.role + '|>\n' + message.content + '<|end|>\n' -}}
{%- endfor -%}
{{- '<|assistant|>\n' if add_generation_prompt else eos_token -}}
"""
DEEPSEEK_R1 = """
{{- bos_token -}}
{%- for message in messages -%}
  {%- if message.role == 'system' -%}
    {{- message.content -}}
  {%- elif message.role == 'user' -%}
    {{- '<\uff5cUser\uff5c>' + message.content -}}
  {%- else -%}
    {{- '<\uff5cAssistant\uff5c>' + message.content.split('</think>')[-1] + eos_token -}}
  {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
  {{- '<\uff5cAssistant\uff5c><think>\n' -}}
{%- endif -%}
"""
